"""Curates sets of records as the paper does: raw JSONL in, train, valid and test out.

    python -m instructgpt.curate INPUT.jsonl [INPUT2.jsonl ...] OUTDIR --kind=prompts

removes duplicates, prompts over a customer's cap and, from the training split, prompts
with personal data; splits by customer; and writes to OUTDIR

    KIND.train.jsonl KIND.valid.jsonl KIND.test.jsonl   what was kept, in input order
    removed.jsonl   the id, line and reason of each record that was not (never its text)
    moved.jsonl     records moved to their customer's split (with --given-splits)
    card.md card.json   the data card: the paper's tables of sizes and lengths

The rules and their order are in `instructgpt/data/curation/rules.py`, the fields of a
line in `instructgpt/data/records.py`; a line of demonstrations may also be a few-shot
instruction (`instructgpt/data/curation/units.py`). OUTDIR appears when all is done.
The input is read once, and memory does not grow with its size, unless a file is a
single JSON list.
"""

import argparse
import os
import sys
from collections.abc import Sequence

from instructgpt.data.curation.files import KINDS, Result, curate_files
from instructgpt.data.curation.rules import Rules
from instructgpt.data.records import SPLITS
from instructgpt.errors import UserError
from instructgpt.tokenizer import load_tokenizer


def report(
    result: Result, rules: Rules, *, kind: str, given_splits: Sequence[str] = ()
) -> str:
    """The command's printed table, with a line for each split without a record."""
    meanings = {
        "length": "too short or too long",
        "language": f"not in {', '.join(rules.languages)}",
        "cross_split": "of a customer in another split",
        "pii": "personal data, in the training split",
        "duplicate": f"first {rules.prefix_chars} characters as one kept before",
        "cap": f"over {rules.cap} of one customer",
    }
    total = sum(result.kept.values()) + sum(result.removed.values())
    rows = [(f"kept, {split}", result.kept[split], "") for split in SPLITS]
    rows += [(f"removed, {r}", n, meanings[r]) for r, n in result.removed.items()]
    lines = [
        f"{name:<21}{n:>12,}{n / total:>8.1%}  {meaning}".rstrip()
        for name, n, meaning in rows
        if n
    ]
    if result.moved:
        lines.append(f"moved to the split of their customer: {result.moved:,}")
    rate = result.lines / max(result.seconds, 1e-9)
    lines.append(
        f"{result.lines:,} lines in {result.seconds:.1f} s ({rate:,.0f} a second)"
    )
    for split, share in zip(SPLITS, rules.fractions, strict=True):
        if result.kept[split]:
            continue
        if split in given_splits:
            lines.append(f"no {split} {kind}: nothing of this split's file was kept")
        elif share and not given_splits:
            lines.append(
                f"no {split} {kind}: no customer that was kept fell into this split;"
                " give it a larger share by --split, another --seed or more records"
            )
    return "\n".join(lines)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line; defaults are those of `Rules`."""
    default = Rules()
    parser = argparse.ArgumentParser(
        prog="python -m instructgpt.curate", description=__doc__.splitlines()[0]
    )
    add = parser.add_argument
    home = os.path.expanduser  # replaces ~ at the start of a path
    add("inputs", nargs="+", type=home, metavar="INPUT.jsonl")
    add("outdir", type=home, metavar="OUTDIR", help="a new or an empty folder")
    add("--kind", choices=KINDS, required=True)
    add(
        "--prefix-chars",
        type=int,
        default=default.prefix_chars,
        help="records that share so many first characters are duplicates (%(default)s)",
    )
    add("--cap", type=int, default=default.cap, help="of one customer (%(default)s)")
    add(
        "--split",
        type=_numbers,
        default=default.fractions,
        metavar="TRAIN,VALID,TEST",
        help="fractions of the customers (0.8,0.1,0.1)",
    )
    add("--seed", type=int, default=default.seed, help="of the split (%(default)s)")
    add("--min-chars", type=int, default=default.min_chars, help="of a prompt")
    add("--max-chars", type=int, help="of a prompt")
    add("--max-tokens", type=int, help="of a prompt; needs --tokenizer")
    add(
        "--tokenizer",
        type=home,
        metavar="FILE",
        help="SentencePiece model; lengths in tokens",
    )
    add(
        "--languages", type=_names, default=(), metavar="en,...", help="keep only these"
    )
    add(
        "--language-sample",
        type=int,
        default=0,
        metavar="N",
        help="put the languages of N prompts on the card (%(default)s)",
    )
    add(
        "--given-splits",
        type=_names,
        default=(),
        metavar="train,valid,...",
        help="the inputs are these splits already; earlier ones keep their customers",
    )
    add(
        "--cross-split",
        choices=("move", "drop"),
        default=default.cross_split,
        help="what to do with a customer's records in a second split (%(default)s)",
    )
    return parser.parse_args(argv)


def _numbers(text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r}: give three numbers, for example 0.8,0.1,0.1"
        ) from error


def _names(text: str) -> tuple[str, ...]:
    return tuple(text.split(","))


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command; a user's mistake ends in one line."""
    options = parse(argv)
    try:
        rules = Rules(
            prefix_chars=options.prefix_chars,
            cap=options.cap,
            fractions=options.split,
            seed=options.seed,
            min_chars=options.min_chars,
            max_chars=options.max_chars,
            max_tokens=options.max_tokens,
            languages=options.languages,
            cross_split=options.cross_split,
        )
        result = curate_files(
            options.inputs,
            options.outdir,
            kind=options.kind,
            rules=rules,
            tokenizer=load_tokenizer(options.tokenizer) if options.tokenizer else None,
            given_splits=options.given_splits,
            language_sample=options.language_sample,
            log=lambda line: print(line, file=sys.stderr, flush=True),
        )
    except UserError as error:
        sys.exit(f"error: {error}")
    print(report(result, rules, kind=options.kind, given_splits=options.given_splits))


if __name__ == "__main__":
    main()
