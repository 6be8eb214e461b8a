"""The evaluators and judges of a comparison: those that its config names."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from instructgpt.errors import UserError
from instructgpt.evals.builtin import EVALUATORS, JUDGES
from instructgpt.evals.interface import named_classes
from instructgpt.evals.judges.chat import is_address
from instructgpt.identity import IDENTITY, Identity
from instructgpt.paths import resolve
from instructgpt.stages import common, loading
from instructgpt.stages.compared import ModelEntry, entry_init

# Blocks of classes by name -> the built-in ones, and the method that all have.
NAMED: dict[str, tuple[Mapping[str, type], str]] = {
    "judges": (JUDGES, "judge"),
    "evaluators": (EVALUATORS, "run"),
}


def named_blocks(
    config: ConfigDict, *, people: str, chat: str
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, Any]]]:
    """The class name and the fields of each judge, and of each evaluator, by key.

    Args:
      config: The stage's config.
      people: A file of people's judgements, a judge of its own; "": none.
      chat: MODEL@ADDRESS of a language model that judges; "": none.
    """
    judges, evaluators = (
        config[block].to_dict() if block in config else {} for block in NAMED
    )
    if people:
        judges["people"] = dict(name="people", path=people)
    if chat:
        model, at, address = chat.partition("@")
        if not model or not at or not is_address(address):
            raise UserError(
                f"config.evaluate.chat={chat!r}: give MODEL@ADDRESS, such as "
                "qwen@http://localhost:8000/v1"
            )
        judges["chat"] = dict(name="chat", model=model, address=address)
    return judges, evaluators


def check_named(config: ConfigDict, *, people: str, chat: str) -> None:
    """Raises UserError if an evaluator or a judge is no class with such fields."""
    for block, (name, (known, method)) in zip(
        named_blocks(config, people=people, chat=chat), NAMED.items(), strict=True
    ):
        named_classes(block, known, method=method, where=f"config.{name}")


def without_reward(judges: Mapping[str, Any]) -> dict[str, Any]:
    """Leaves out the reward model as a judge, and says so."""
    left = {k: v for k, v in judges.items() if v.get("name") != "reward"}
    if not left:
        raise UserError(
            "config.judges: nothing judges the answers; name a reward stage's workdir "
            "by --config.evaluate.reward, people's judgements by "
            "--config.evaluate.people, or a language model by --config.evaluate.chat"
        )
    common.announce("evaluate: there is no reward model, so its scores are left out")
    return left


def trained_for(
    reward: loading.InitConfig,
    entries: Mapping[str, ModelEntry],
    context: common.Context,
) -> list[str]:
    """Names of the models that were trained to raise this reward model's score."""
    own = _identity(Path(resolve(reward.path, context.workdir)))
    found = []
    for name, entry in entries.items():
        init = entry_init(entry, name)
        trained = _identity(Path(resolve(init.path, context.workdir)))
        wanted = trained is not None and trained.parents.get("reward_init.path")
        if own is not None and wanted == own.digest:
            found.append(name)
    return found


def _identity(workdir: Path) -> Identity | None:
    """What a stage's run is made of; None of an imported model, which has no run."""
    path = workdir / IDENTITY
    return Identity.read(path) if path.exists() else None
