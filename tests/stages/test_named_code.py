"""A run knows the code of its user's own functions, which the config only names."""

import pytest

from instructgpt.errors import UserError
from instructgpt.identity import Identity
from instructgpt.manifest import value_checksum
from instructgpt.stages import common, recipe
from tests.stages.recipe_run import Finished, finished, get_config, link_stages


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    return finished(tmp_path_factory)


def test_changed_code_of_a_users_function_is_another_run(run, tmp_path, monkeypatch):
    link_stages(run, tmp_path)
    module = tmp_path / "my_own_rewards.py"
    module.write_text("def longest(records, responses):\n    return [1.0]\n")
    monkeypatch.syspath_prepend(tmp_path)
    recipe_config = get_config(data_dir=str(run.workdir / "data"))
    config = recipe.stage_config(recipe_config, "ppo")
    config.reward_function.name = "my_own_rewards:longest"
    workdir = tmp_path / "ppo_again"
    common.start(config, workdir)
    (workdir / "metrics.jsonl").touch()
    common.start(config, workdir)
    module.write_text("def longest(records, responses):\n    return [2.0]\n")
    says = "config.reward_function.name: the code of this name has changed"
    with pytest.raises(UserError, match=says):
        common.start(config, workdir)
    config.resume.changed = ("reward_function.name",)
    common.start(config, workdir)


def test_an_identity_without_code_is_what_it_was_before_it_had_any():
    values = dict(config={"seed": 0}, data={}, tokenizer="t", parents={})
    expected = value_checksum({**values, "before": []})
    assert Identity(**values).digest == expected
    assert Identity(**values, code={"x.name": "1"}).digest != expected
