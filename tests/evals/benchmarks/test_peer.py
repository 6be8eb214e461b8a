"""The task files give the same through our adapter and through transformers'.

The model is tiny and random; `tests/benchmarks/peer_lm_eval.py` compares a real one.
"""

import pytest

from instructgpt.convert.exporting import export_checkpoint
from instructgpt.convert.importing import import_checkpoint
from instructgpt.evals.benchmarks.suite import Suite
from instructgpt.inference import LanguageModel
from tests.evals.benchmarks import hub_rows
from tests.hf_models import write_chat_model

# A task of each kind: their texts are held to the paper's in test_suite.py.
SUITE = (
    "instructgpt_zero_shot,instructgpt_rte_15shot,instructgpt_squad_4shot,"
    "instructgpt_truthfulqa,instructgpt_bias,instructgpt_toxicity"
)
# A random model's two best tokens are near each other, but not so near.
TOLERANCE = 2e-4


def test_each_item_is_the_same(tmp_path):
    torch = pytest.importorskip("torch")
    pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    from lm_eval.models.huggingface import HFLM

    # So long that no text is cut, which both do, but not at the same token.
    write_chat_model(tmp_path / "theirs", context_length=4096)
    import_checkpoint(str(tmp_path / "theirs"), tmp_path / "base")
    export_checkpoint(tmp_path / "base", tmp_path / "exported")
    hub_rows.write_sets(tmp_path / "sets")
    suite = Suite.open(SUITE, limit=4, sets=str(tmp_path / "sets"))
    ours = suite.run(LanguageModel.open(tmp_path / "base"))
    peer = HFLM(
        pretrained=str(tmp_path / "exported"),
        dtype=torch.float32,
        device="cpu",
        batch_size=8,
    )
    theirs = suite.ask(peer)
    for mine, other in zip(ours.rows, theirs.rows, strict=True):
        assert mine["prompt"] == other["prompt"]
        if mine["choices"] is None:
            assert mine["response"] == other["response"], mine["task"]
            continue
        for (a, greedy), (b, same) in zip(
            mine["response"], other["response"], strict=True
        ):
            assert a == pytest.approx(b, abs=TOLERANCE, rel=1e-5), mine["task"]
            assert greedy == same
        for metric, value in other["metrics"].items():
            assert mine["metrics"][metric] == pytest.approx(value, abs=1e-3)
        assert "acc_token" not in other["metrics"]
    # Only our adapter counts tokens.
    assert any("acc_token" in row["metrics"] for row in ours.rows)
