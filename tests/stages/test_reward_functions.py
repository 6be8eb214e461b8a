"""PPO on a reward that is a Python function, and from models that the config names."""

import json
from pathlib import Path

import numpy as np
import pytest

from instructgpt.errors import UserError
from instructgpt.metrics import read_metrics
from instructgpt.stages import ppo
from tests.stages.recipe_run import Finished, finished, get_config

FUNCTIONS = '''
def longest(records, responses):
    return [len(text) / 50 for text in responses]


def shortest(records, responses):
    return [-len(text) / 50 for text in responses]


def same_letters(records, responses):
    """How many letters of the record's reference stand in the answer, of 26."""
    pairs = zip(records, responses, strict=True)
    return [len(set(text) & set(r["reference"])) / 26 for r, text in pairs]
'''


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


@pytest.fixture(scope="module", autouse=True)
def _functions(tmp_path_factory):
    folder = tmp_path_factory.mktemp("functions")
    (folder / "own_rewards.py").write_text(FUNCTIONS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield


def smoke(run: Finished, **changes):
    """PPO of the smoke recipe on one device, without a reward model."""
    config = get_config(data_dir=str(run.workdir / "data")).stages.ppo
    config.mesh = dict(data=-1, fsdp=1, tensor=1, cpu_devices=1)
    config.init.path = str(run.workdir / "rl_init")
    config.reward_init.path = "../nowhere"
    config.ppo.kl_coef = 0.0
    config.rollout.num_samples = 0
    config.train.eval_every = config.train.checkpoint_every = 0
    config.update_from_flattened_dict(changes)
    return config


def curve(workdir: Path, name: str) -> np.ndarray:
    rows = read_metrics(workdir / "metrics.jsonl")
    return np.array([row[name] for row in rows if name in row])


@pytest.mark.slow
@pytest.mark.parametrize(("wanted", "sign"), [("longest", 1), ("shortest", -1)])
def test_a_function_of_length_changes_the_length(run, tmp_path, wanted, sign):
    config = smoke(
        run, **{"reward_function.name": f"own_rewards:{wanted}", "train.num_steps": 60}
    )
    ppo.run(config, tmp_path)
    lengths = curve(tmp_path, "response_length")
    assert len(lengths) == 60
    assert sign * (lengths[-10:].mean() - lengths[:10].mean()) > 0


def test_a_changed_reference_answer_changes_the_score(run, tmp_path):
    (tokenizer,) = (run.workdir / "data").glob("*/tokenizer-*.model")
    scores = []
    for name, reference in (("vowels", "aeiou"), ("nothing", "")):
        folder = tmp_path / name
        folder.mkdir()
        rows = [
            {"prompt": f"Where is house {n}?", "reference": reference}
            for n in range(16)
        ]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "prompts.train.jsonl").write_text(lines)
        config = smoke(
            run,
            **{
                "data.jsonl": str(folder),
                "data.tokenizer": str(tokenizer),
                "data.dir": str(tmp_path / "sets"),
                "reward_function.name": "own_rewards:same_letters",
                "train.num_steps": 1,
                "rollout.ptx_length": 96,
            },
        )
        ppo.run(config, tmp_path / f"ppo {name}")
        scores.append(curve(tmp_path / f"ppo {name}", "score")[0])
    assert scores[0] > scores[1] == 0.0


def test_a_function_stands_beside_a_reward_model(run, tmp_path):
    scores = {}
    for name, weight, model_weight in (
        ("model", None, None),
        ("function", 1.0, 0.0),
        ("both", 2.0, 0.5),
    ):
        changes = {
            "train.num_steps": 1,
            "reward_init.path": str(run.workdir / "reward"),
        }
        if weight is not None:
            changes |= {
                "reward_function.name": "own_rewards:longest",
                "reward_function.weight": weight,
                "reward_function.model_weight": model_weight,
            }
        ppo.run(smoke(run, **changes), tmp_path / name)
        scores[name] = curve(tmp_path / name, "score")[0]
    expected = 2.0 * scores["function"] + 0.5 * scores["model"]
    assert scores["both"] == pytest.approx(expected, rel=1e-5)


def test_the_reference_is_the_model_that_is_named(run, tmp_path):
    def first_kl(name: str, **changes):
        changes |= {"reward_function.name": "own_rewards:longest", "train.num_steps": 1}
        ppo.run(smoke(run, **changes), tmp_path / name)
        return curve(tmp_path / name, "kl")[0]

    assert abs(first_kl("itself")) < 1e-3
    other = {"reference_init.path": str(run.workdir / "pretrain")}
    assert first_kl("other", **other) > 0.1


def test_the_value_net_starts_from_the_model_that_is_named(run, tmp_path):
    def first_value(name: str, **changes):
        changes |= {"reward_function.name": "own_rewards:longest", "train.num_steps": 1}
        ppo.run(smoke(run, **changes), tmp_path / name)
        return curve(tmp_path / name, "value")[0]

    found = [
        first_value("policy"),
        first_value("reward", **{"value_init.path": str(run.workdir / "reward")}),
        first_value("pretrain", **{"value_init.path": str(run.workdir / "pretrain")}),
    ]
    assert len({round(value, 6) for value in found}) == 3


@pytest.mark.parametrize(
    "changes",
    [
        {"reward_function.model_weight": 0.0},
        {"reward_function.name": "own_rewards:longest", "reward_function.weight": 0.0},
    ],
)
def test_a_reward_of_nothing_is_refused(run, tmp_path, changes):
    with pytest.raises(UserError, match=r"reward_function: .* leave no reward; give"):
        ppo.run(smoke(run, **changes), tmp_path / "ppo")


def test_a_function_that_is_not_there_is_found_out_at_once(run, tmp_path):
    config = smoke(run, **{"reward_function.name": "own_rewards:longer"})
    with pytest.raises(UserError, match=r"reward_function\.name='own_rewards:longer'"):
        ppo.run(config, tmp_path)
    assert not (tmp_path / "metrics.jsonl").exists()
