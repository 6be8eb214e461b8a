"""The table of public data sets: contents, origin and readers of each."""

import functools
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from instructgpt.data.origins.download import RemoteFile
from instructgpt.data.readers import (
    fine_grained,
    hh_rlhf,
    instructions,
    openassistant,
    summarize_feedback,
    tasks,
    texts,
)
from instructgpt.data.readers.report import Report
from instructgpt.data.records import FIELDS, Record, read_jsonl
from instructgpt.errors import UserError

# (path, *, report, **options) -> records, with the split if the row names one.
Reader = Callable[..., Iterator[Record]]


class PublicSet(NamedTuple):
    """An entry of the table.

    Attributes:
      readers: readers by kind; `prompts` may be left out, since they follow from the
        demonstrations or comparisons.
      licence: licence as stated by the authors.
      homepage: address of a description.
      files: published files of each split; empty for a user's own data.
      names: patterns of the files to read in a folder, if `files` is empty.
    """

    readers: Mapping[str, Reader]
    licence: str
    homepage: str = ""
    files: Mapping[str, tuple[RemoteFile, ...]] = {}
    names: tuple[str, ...] = ()

    @property
    def kinds(self) -> tuple[str, ...]:
        """Kinds of records that the set has."""
        derived = {"demonstrations", "comparisons"} & set(self.readers)
        return tuple(
            kind
            for kind in FIELDS
            if kind in self.readers or (kind == "prompts" and derived)
        )


def get_set(name: str) -> PublicSet:
    """The entry of a set.

    Raises:
      UserError: there is no such set.
    """
    if name not in SETS:
        raise UserError(f"no data set {name!r}; known: {', '.join(SETS)}.")
    return SETS[name]


def _own(path: Path, *, report: Report, kind: str) -> Iterator[Record]:
    """Yields records in our own form; every line must be valid, so none is left out."""
    return read_jsonl(path, kind)


def _github(repository: str, commit: str) -> str:
    return f"https://raw.githubusercontent.com/{repository}/{commit}"


def _files(base: str, **splits: tuple[str, str]) -> dict[str, tuple[RemoteFile, ...]]:
    """The files of a set with one per split, each given as (path, SHA-256 or "")."""
    return {split: (RemoteFile(base, *file),) for split, file in splits.items()}


def _hh_rlhf(part: str) -> PublicSet:
    return PublicSet(
        {
            "comparisons": hh_rlhf.comparisons,
            "demonstrations": hh_rlhf.demonstrations,
        },
        "MIT",
        "https://github.com/anthropics/hh-rlhf",
        _files(
            "hub:Anthropic/hh-rlhf",
            train=(f"{part}/train.jsonl.gz", ""),
            test=(f"{part}/test.jsonl.gz", ""),
        ),
    )


SETS: dict[str, PublicSet] = {
    "jsonl": PublicSet(
        {kind: functools.partial(_own, kind=kind) for kind in FIELDS}, "your own"
    ),
    "plain_text": PublicSet(
        {"documents": texts.plain_text},
        "your own",
        names=("*.txt", "*.txt.gz", "*.txt.xz"),
    ),
    "wikitext": PublicSet(
        {"documents": texts.wikitext},
        "CC BY-SA 3.0 (Wikipedia)",
        "https://arxiv.org/abs/1609.07843",
        _files(
            _github("pytorch/examples", "77f55b912142e11fcfdf5b530231fb9c52f181e8"),
            train=("word_language_model/data/wikitext-2/train.txt", ""),
            valid=(
                "word_language_model/data/wikitext-2/valid.txt",
                "f0737ed31fc1329026e95cb8b98e19c2a182c39c240ab909dc31abf2f8af58e8",
            ),
            test=(
                "word_language_model/data/wikitext-2/test.txt",
                "d790b833ef8cf03a90db7bf1271b7520b83c45ce07ba3c1a9699df81e239eca0",
            ),
        ),
    ),
    "openassistant": PublicSet(
        {
            "demonstrations": openassistant.demonstrations,
            "comparisons": openassistant.comparisons,
            "prompts": openassistant.prompts,
        },
        "Apache-2.0",
        "https://huggingface.co/datasets/OpenAssistant/oasst1",
        _files(
            "hub:OpenAssistant/oasst1@5c38bf14fe3c7bb31bb8e13eb4f87b2c6fd78d93",
            train=(
                "2023-04-12_oasst_ready.trees.jsonl.gz",
                "2a9a8fd343e9b28e04a895a669d3253f82d93e9c174d440199ae19d5fafbdff7",
            ),
        ),
    ),
    "hh_rlhf_harmless": _hh_rlhf("harmless-base"),
    "hh_rlhf_helpful": _hh_rlhf("helpful-base"),
    "hh_rlhf_helpful_rejection": _hh_rlhf("helpful-rejection-sampled"),
    "hh_rlhf_helpful_online": _hh_rlhf("helpful-online"),
    "fine_grained": PublicSet(
        {
            "comparisons": fine_grained.comparisons,
            "demonstrations": fine_grained.demonstrations,
        },
        "Apache-2.0",
        "https://github.com/allenai/FineGrainedRLHF",
        _files(
            _github(
                "allenai/FineGrainedRLHF", "a1469d4eba0b3754bcb343beb88f0aca24bf4848"
            ),
            train=("tasks/qa_feedback/data/train_feedback.json", ""),
            valid=(
                "tasks/qa_feedback/data/dev_feedback.json",
                "f394289ecfdc5a2d1663170254b92d75ad3c53ba36df9f627c70d4c6fc4f3291",
            ),
        ),
    ),
    "summarize_feedback": PublicSet(
        {"comparisons": summarize_feedback.comparisons},
        "Modified MIT; posts under Reddit TL;DR's own terms",
        "https://github.com/openai/summarize-from-feedback",
        {
            "train": tuple(
                RemoteFile(
                    "https://openaipublic.blob.core.windows.net/summarize-from-feedback",
                    f"dataset/comparisons/batch{number}.json",
                )
                for number in range(3, 11)
            )
        },
    ),
    "alpaca": PublicSet(
        {"demonstrations": instructions.alpaca},
        "CC BY-NC 4.0",
        "https://github.com/tatsu-lab/stanford_alpaca",
        _files(
            _github(
                "tatsu-lab/stanford_alpaca", "761dc5bfbdeeffa89b8bff5d038781a4055f796a"
            ),
            train=("alpaca_data.json", ""),
        ),
    ),
    "raschka": PublicSet(
        {"demonstrations": instructions.alpaca},
        "Apache-2.0",
        "https://github.com/rasbt/LLMs-from-scratch",
        _files(
            _github(
                "rasbt/LLMs-from-scratch", "28c65cdfbc3338e2e040016eea4b7fdf556e4d57"
            ),
            train=(
                "ch07/01_main-chapter-code/instruction-data.json",
                "7e09a9af353722ca15c18bc580f093f9c39d3178335a75177319cb1e1d163944",
            ),
        ),
    ),
    "dolly": PublicSet(
        {"demonstrations": instructions.dolly},
        "CC BY-SA 3.0",
        "https://huggingface.co/datasets/databricks/databricks-dolly-15k",
        _files(
            "hub:databricks/databricks-dolly-15k@d8f5e5a51f11198575022179c8b8e714f3509288",
            train=(
                "databricks-dolly-15k.jsonl",
                "2df9083338b4abd6bceb5635764dab5d833b393b55759dffb0959b6fcbf794ec",
            ),
        ),
    ),
    "self_instruct": PublicSet(
        {"demonstrations": instructions.self_instruct},
        "Apache-2.0",
        "https://github.com/yizhongw/self-instruct",
        _files(
            _github(
                "yizhongw/self-instruct", "0b26ccaa415992100fa32df62d41b994cf928e23"
            ),
            train=(
                "data/seed_tasks.jsonl",
                "7779004fa198fdf27cf70a159363879d8a26c53329e11b436af17b3941875f48",
            ),
            test=(
                "human_eval/user_oriented_instructions.jsonl",
                "81d60a117db495cecedecd9193504fd07c5b5a42f6699ef6b0f9da10fc22f42e",
            ),
        ),
    ),
    "p3": PublicSet(
        {"demonstrations": tasks.p3},
        "Apache-2.0 (prompts); passages under their sources' licences",
        "https://github.com/yizhongw/self-instruct/tree/main/data/finetuning/t0_train_50k",
        names=("*.jsonl", "*.jsonl.gz", "*.jsonl.xz"),
    ),
    "gsm8k": PublicSet(
        {"demonstrations": tasks.gsm8k},
        "MIT",
        "https://github.com/openai/grade-school-math",
        _files(
            _github(
                "openai/grade-school-math", "3101c7d5072418e28b9008a6636bde82a006892c"
            ),
            train=(
                "grade_school_math/data/train.jsonl",
                "17f347dc51477c50d4efb83959dbb7c56297aba886e5544ee2aaed3024813465",
            ),
            test=(
                "grade_school_math/data/test.jsonl",
                "3730d312f6e3440559ace48831e51066acaca737f6eabec99bccb9e4b3c39d14",
            ),
        ),
    ),
    "scitldr": PublicSet(
        {"demonstrations": tasks.scitldr},
        "Apache-2.0",
        "https://github.com/allenai/scitldr",
        _files(
            _github("allenai/scitldr", "5ccad9c00a60ad75c9e04abf7f27d0f53f983b20"),
            train=(
                "SciTLDR-Data/SciTLDR-A/train.jsonl",
                "b222771d387be585cfdf5ae957b36757138415a352e0a3e3b23f73f87c3b1119",
            ),
            valid=(
                "SciTLDR-Data/SciTLDR-A/dev.jsonl",
                "3191fa98ccc09521332b7a1cd63b1930be4e8df125a235ccd31e40329709525e",
            ),
            test=(
                "SciTLDR-Data/SciTLDR-A/test.jsonl",
                "fb42dd6cd4f4a1928ae8a01a189456fbfe994a07e938bd49f68653933f6503c9",
            ),
        ),
    ),
}
