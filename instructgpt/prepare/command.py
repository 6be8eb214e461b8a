"""Makes a folder of records from files of one's own and from public data sets.

    python -m instructgpt.prepare OUTDIR --demonstrations=NAME --comparisons=NAME \\
        --documents=NAME --prompts=NAME

Each flag may be given several times. NAME is a file or folder (./mine.csv), a set of
the Hugging Face hub (hub:OWNER/NAME[@REVISION][:SPLIT]) or of TensorFlow Datasets
(tfds:NAME[:SPLIT]), or a set known here, downloaded (gsm8k) or as a file (gsm8k:FILE).
--columns=prompt=question,response=answer after a NAME says what its columns mean.

OUTDIR gets KIND.{train,valid,test}.jsonl, for `--config.data.jsonl=OUTDIR`, a
tokenizer.model made of the training texts, and sources.json, which names the origins.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import Any

from instructgpt.data.origins.given import split_name
from instructgpt.data.origins.published import CACHE, SHARES
from instructgpt.data.readers import SETS, check_columns
from instructgpt.data.records import FIELDS
from instructgpt.errors import UserError
from instructgpt.prepare.building import Wanted, prepare


class _Name(argparse.Action):
    """Notes a name with its kind, in the order of the command line."""

    def __call__(self, parser, namespace, values, option_string=None):
        namespace.wanted = [*namespace.wanted, (self.dest, values, [])]


class _Columns(argparse.Action):
    """Gives a mapping of columns to the name before it."""

    def __call__(self, parser, namespace, values, option_string=None):
        if not namespace.wanted:
            parser.error(f"--columns={values}: give it after the name that it is for")
        namespace.wanted[-1][2].append(values)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parses the command line; a mistake ends the program with one line."""
    parser = argparse.ArgumentParser(
        prog="python -m instructgpt.prepare",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="known sets: "
        + "; ".join(f"{name}: {', '.join(SETS[name].kinds)}" for name in SETS),
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("outdir", type=os.path.expanduser, help="new folder for KIND.SPLIT.jsonl")
    for kind in FIELDS:
        add(f"--{kind}", action=_Name, metavar="NAME", default=[])
    parser.set_defaults(wanted=[])
    add(
        "--columns",
        action=_Columns,
        metavar="NAME=COLUMN,...",
        help="of the file, hub: or tfds: before it, as in prompt=question",
    )
    add(
        "--option",
        action="append",
        default=[],
        metavar="NAME.KEY=VALUE",
        help="of a known set's reader, as in openassistant.lang=en",
    )
    for split, share in SHARES.items():
        add(
            f"--{split}",
            type=float,
            default=share,
            help=f"share of groups for sets without a {split} file (%(default)s)",
        )
    add("--max-rows", type=int, default=0, help="of each set and kind")
    add("--seed", type=int, default=0, help="of splits and choices")
    add(
        "--tokenizer",
        default="",
        type=os.path.expanduser,
        metavar="FILE",
        help="a file or folder to copy; none: OUTDIR gets no tokenizer",
    )
    add(
        "--vocab-size",
        type=int,
        default=0,
        help="at most so many pieces of the tokenizer that is made; by default they"
        " grow with the text",
    )
    add("--cache", default=str(CACHE), help="for downloads")
    return parser.parse_args(argv)


def main(argv: Sequence[str]) -> None:
    """Runs the command; a user's mistake ends in one line."""
    args = parse(argv)
    try:
        prepare(
            args.outdir,
            [_wanted(*given) for given in _in_order(args.wanted)],
            options=_parse_options(args.option),
            shares={split: getattr(args, split) for split in SHARES},
            max_rows=args.max_rows,
            seed=args.seed,
            tokenizer=args.tokenizer,
            vocab_size=args.vocab_size,
            cache=args.cache,
        )
    except UserError as error:
        sys.exit(f"error: {error}")


def _in_order(given: Sequence[Any]) -> list[Any]:
    """By kind in the order of `FIELDS`; names of one kind keep theirs."""
    return sorted(given, key=lambda one: list(FIELDS).index(one[0]))


def _wanted(kind: str, text: str, columns: Sequence[str]) -> Wanted:
    name, path = split_name(text, kind=kind)
    pairs = {}
    for pair in ",".join(columns).split(",") if columns else ():
        target, equals, column = pair.partition("=")
        if not (equals and target and column):
            raise UserError(f"--columns={pair}: give NAME=COLUMN,NAME=COLUMN.")
        pairs[target.strip()] = column.strip()
    check_columns(pairs)
    if pairs and name in SETS:
        raise UserError(
            f"--columns: {name} is read in its own format; give the file by its path"
            " alone (./FILE) to say what its columns mean."
        )
    return Wanted(kind, name, path, tuple(pairs.items()))


def _parse_options(texts: Sequence[str]) -> dict[str, dict[str, str]]:
    options: dict[str, dict[str, str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        name, dot, option = key.partition(".")
        if not (equals and dot):
            raise UserError(f"--option={text}: give NAME.KEY=VALUE.")
        options.setdefault(name, {})[option] = value
    return options
