"""The identity of a stage's run, which is stored and compared by later runs.

A run's identity is its config, its data, its tokenizer, and the identity of every stage
that it reads. The workdir holds it in `identity.json` from the first step on, and at
the end in `finished.json`, with the checksums of the stage's files.

- A run that is started again must have the same identity, except for `FREE_KEYS` and
  for changes that its user declares (`ResumeConfig`), which are recorded.
- A recipe compares each finished stage with the identity that it would have now.
- A stage that loads another stage's model must share its tokenizer, template and
  held-out data, but not its seed, rate or size.
"""

import dataclasses
import json
import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from instructgpt.checkpoints import newest_weights
from instructgpt.distributed import is_first
from instructgpt.errors import UserError
from instructgpt.locks import LOCK
from instructgpt.manifest import MANIFEST, file_checksum, listed, value_checksum
from instructgpt.outputs import new_file
from instructgpt.trackers import WANDB_FILE, WANDB_FOLDER

IDENTITY, FINISHED, CONFIG = "identity.json", "finished.json", "config.json"
MINUTES = "minutes.json"  # file of a recipe: how long each stage took
_WITH_CHECKSUM = (IDENTITY, FINISHED, MINUTES)  # files that hold their own checksum
# Folder of the answers that a stage has sampled so far. Each file knows what it was
# made from, and is not used after a change of that.
ANSWERS = "answers"
TO_JUDGE = "answers.jsonl"  # answers of all compared models, for people to judge
REPLIES = "replies.jsonl"  # replies of a language model that judges
RUNS = "runs"  # folder of the workdirs of stages that a stage runs by itself
# Folders and files of a workdir that no other stage reads.
_OWN = ("checkpoints", "samples", RUNS, WANDB_FOLDER, WANDB_FILE)
# Files of a run whose config may still change, because it has trained nothing.
BEGUN = {CONFIG, IDENTITY, LOCK, ANSWERS, TO_JUDGE, REPLIES}

# Keys that may differ when a run is started again in the same workdir, because they do
# not change its results. A checkpoint fits any mesh, so a run may resume with other
# devices. A path may change as long as it leads to the same content.
FREE_KEYS = (
    *("train.log_every", "train.eval_every", "train.keep"),
    *("mesh.data", "mesh.fsdp", "mesh.tensor", "mesh.cpu_devices"),
    *("data.dir", "data.jsonl", "data.tokenizer", "evaluate.curves"),
    *("checkpoints.verify", "resume.changed", "trackers"),
    # A sweep whose values or measurements change runs and measures what is missing.
    *("sweep.recipe", "sweep.grid", "sweep.measured", "sweep.axis"),
    *("measure.split", "measure.num_prompts", "measure.batch_size", "measure.window"),
    *("measure.baseline", "measure.select", "measure.reference", "measure.reward"),
)

# Keys that name the workdirs of other stages.
_PARENTS = re.compile(
    r"(.*\.)?(init|\w+_init)\.(path|selected_by)|label\.policies|"
    r"reward\.comparisons|select\.(candidates|reward)|"
    r"evaluate\.(reward|comparisons|select|models)|best_of\.policies|"
    r"models\.[^.]+\.prefix"
)
# Keys of other paths that a run reads or writes, and of a recipe's reward model.
_OTHER_PATHS = re.compile(
    r"data\.(dir|jsonl|tokenizer)|evaluate\.(curves|sets|toxicity|judges|people)|"
    r"judges\.\w+\.path|label\.rankings|prefix\.file|reward_model|sweep\.recipe"
)


@dataclasses.dataclass(frozen=True)
class ResumeConfig:
    """Changes allowed on resuming, such as a lower rate after a run has diverged."""

    # Flat keys, such as optimizer.learning_rate, whose values may differ from those in
    # the workdir.
    changed: tuple[str, ...] = ()

    @property
    def keys(self) -> frozenset[str]:
        """The single keys; one text may hold several, separated by commas."""
        return frozenset(k.strip() for text in self.changed for k in text.split(","))


@dataclasses.dataclass(frozen=True)
class Identity:
    """Everything that determines the results of a run."""

    config: dict[str, Any]  # values by flat key, without paths and `FREE_KEYS`
    data: dict[str, str]  # name of a file, or of the world -> fingerprint
    tokenizer: str  # fingerprint of the tokenizer
    parents: dict[str, str]  # flat key -> identity of the stage that it names
    # Flat key -> checksum of the file of the user's function or class that it names.
    code: dict[str, str] = dataclasses.field(default_factory=dict)
    # Digests of earlier identities, if the run was resumed with changes; each with the
    # step of the last checkpoint made under it.
    before: list[dict[str, Any]] = dataclasses.field(default_factory=list)

    @property
    def digest(self) -> str:
        """SHA-256 of the identity, 64 hexadecimal digits."""
        values = dataclasses.asdict(self)
        if not self.code:  # the digest stays that of runs made before the field was
            del values["code"]
        return value_checksum(values)

    def after(self, old: "Identity", *, step: int) -> "Identity":
        """This identity for a run that had another one before.

        Args:
          old: The identity of the run until now.
          step: Step of the run's newest checkpoint; 0 if there is none, and then the
            old identity is not recorded.
        """
        if not step:
            return self
        before, trained = list(old.before), old.digest
        if not old.has_trained(step):
            trained = before.pop()["identity"]
        back = dataclasses.replace(self, before=before)
        if back.digest == trained:
            return back
        before = [*before, {"identity": trained, "step": step}]
        return dataclasses.replace(self, before=before)

    def has_trained(self, step: int) -> bool:
        """Whether a run with its newest checkpoint at `step` trained under this one."""
        return not self.before or self.before[-1]["step"] != step

    @classmethod
    def read(cls, path: Path) -> "Identity":
        """Reads an identity from `identity.json` or `finished.json`."""
        remedy = "delete this workdir and make it anew"
        value = read_json(path, remedy=remedy)
        try:
            return cls(**(value["identity"] if path.name == FINISHED else value))
        except TypeError as error:
            raise UserError(f"{path} is damaged; {remedy}") from error


def differences(
    old: Identity, new: Identity, *, but: Collection[str] = ()
) -> list[str]:
    """Lists the differences of two identities by key, ignoring the keys in `but`."""
    out = config_differences(old.config, new.config, but=but)
    for key in _differing(old.data, new.data):
        out.append(f"config.data: another {key}")
    for key in _differing(old.code, new.code):
        if key not in but:
            what = "the code of this name" if key.endswith(".name") else "its file"
            out.append(f"config.{key}: {what} has changed")
    if old.tokenizer != new.tokenizer:
        out.append("config.data.tokenizer: another tokenizer")
    for key in _differing(old.parents, new.parents):
        if key not in but:
            out.append(f"config.{key}: another run's models or files lie there")
    return out


def changes(
    old: Identity, new: Identity, *, step: int, but: Collection[str] = ()
) -> list[str]:
    """`differences`, or none if a run returns to the identity it last trained under.

    Args:
      old: The identity stored in the workdir.
      new: The identity of the run to be started.
      step: Step of the run's newest checkpoint.
      but: Flat keys that may differ.
    """
    if len(new.after(old, step=step).before) < len(old.before):
        return []
    return differences(old, new, but=but)


def config_differences(
    old: dict[str, Any], new: dict[str, Any], *, but: Collection[str] = ()
) -> list[str]:
    """Lists the differences of two flat configs, ignoring the keys in `but`."""
    return [
        f"config.{key}: {old.get(key, 'unset')} -> {new.get(key, 'unset')}"
        for key in _differing(old, new)
        if key not in but
    ]


def _differing(old: dict[str, Any], new: dict[str, Any]) -> list[str]:
    keys = sorted(old.keys() | new.keys())
    return [key for key in keys if old.get(key) != new.get(key)]


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """A config's values by flat keys such as train.batch_size."""
    out: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, dict):
            out |= flat(value, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = list(value) if isinstance(value, tuple) else value
    return out


def is_parent(key: str) -> bool:
    """Whether a flat key names other stages' workdirs."""
    return _PARENTS.fullmatch(key) is not None


def is_path(key: str) -> bool:
    """Whether a flat key of a stage or a recipe holds one or more paths."""
    return is_parent(key) or _OTHER_PATHS.fullmatch(key) is not None


def own_keys(values: dict[str, Any]) -> dict[str, Any]:
    """The entries of a flat config that are part of a run's identity."""
    return {k: v for k, v in values.items() if k not in FREE_KEYS and not is_parent(k)}


def of_workdir(workdir: Path) -> str:
    """A digest of what another stage has left in its workdir; "" if it is empty."""
    for name, prefix in ((FINISHED, ""), (IDENTITY, "unfinished ")):
        if (workdir / name).exists():
            return f"{prefix}{Identity.read(workdir / name).digest}"
    # A model that no stage made is identified by its weights.
    weights = newest_weights(workdir)
    return f"weights {weights}" if weights else ""


def is_finished(workdir: Path) -> bool:
    """Whether the stage ran to its end, and none of its checkpoints is missing."""
    if not (workdir / FINISHED).exists():
        return False
    found = read_json(workdir / FINISHED, remedy="delete it and run the stage again")
    return set(_steps(workdir)).issuperset(found["steps"]) and all(
        (workdir / name).exists() for name in found["files"]
    )


def newest_step(workdir: Path) -> int:
    """Step of the newest complete checkpoint; 0 if there is none."""
    return max(_steps(workdir), default=0)


def finished_steps(workdir: Path) -> list[int] | None:
    """Steps of a finished stage's checkpoints; None if the stage is not finished."""
    if not (workdir / FINISHED).exists():
        return None
    return read_json(workdir / FINISHED, remedy="run the stage again")["steps"]


def write_finished(workdir: Path, identity: Identity) -> None:
    """Writes `finished.json`: the identity, and the files that the stage left."""
    (workdir / MANIFEST).unlink(missing_ok=True)  # finished.json replaces it
    left = (p for p in workdir.rglob("*") if p.is_file() and _lasts(p, workdir))
    value = {
        "identity": dataclasses.asdict(identity),
        "steps": _steps(workdir),
        "files": {
            p.relative_to(workdir).as_posix(): file_checksum(p) for p in sorted(left)
        },
    }
    write_json(workdir / FINISHED, value)


def _steps(workdir: Path) -> list[int]:
    folders = (p for p in (workdir / "checkpoints").glob("*") if p.name.isdigit())
    return sorted(int(folder.name) for folder in folders)


def _lasts(path: Path, workdir: Path) -> bool:
    """Whether others read a file; checkpoints, which have checksums, are left out."""
    first, name = path.relative_to(workdir).parts[0], path.name
    own = first in _OWN or path == workdir / FINISHED
    return not (own or name.startswith((".", "events.")) or name == CONFIG)


def check_left(path: Path, *, remedy: str) -> None:
    """Raises UserError if a file has changed since its stage wrote it.

    The files of an unfinished stage are checked if its manifest lists them.
    """
    if (path.parent / FINISHED).exists():
        left = read_json(path.parent / FINISHED, remedy=remedy)["files"]
    else:
        try:
            left = listed(path.parent)
        except ValueError as error:
            where = path.parent / MANIFEST
            raise UserError(f"{where} is damaged; delete it, and {path} too") from error
    if path.exists() and left.get(path.name, "") not in ("", file_checksum(path)):
        raise UserError(f"{path} is damaged, or was changed by hand; {remedy}")


def write_json(path: Path, value: Any) -> None:
    """Writes a small JSON file atomically, on process 0."""
    if not is_first():
        return
    if path.name in _WITH_CHECKSUM:
        value = {**value, "checksum": value_checksum(value)}
    with new_file(path) as partial:
        partial.write_text(json.dumps(value, indent=2) + "\n")


def read_json(path: Path, *, remedy: str) -> Any:
    """Reads a small JSON file that a stage has left.

    It is compared with its own checksum, or with that in `finished.json`.

    Raises:
      UserError: it is missing, damaged, or not what was written.
    """
    try:
        value = json.loads(path.read_bytes())
    except FileNotFoundError as error:
        raise UserError(f"{path} is missing; {remedy}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{path} is damaged or cannot be read; {remedy}") from error
    if path.name not in _WITH_CHECKSUM:
        check_left(path, remedy=remedy)
        return value
    checksum = value.pop("checksum", None) if isinstance(value, dict) else None
    if checksum is None or checksum != value_checksum(value):
        raise UserError(f"{path} is damaged; {remedy}")
    return value
