"""Trains a local toxicity scorer, for the evaluations of RealToxicityPrompts.

    python -m instructgpt.toxicity TWEETS.csv PUBLISHED.csv --out=toxicity.joblib

TWEETS.csv has the columns of Davidson et al. 2017 (tweet, count, hate_speech,
offensive_language). PUBLISHED.csv has the columns context, sample and toxicity, the
scores of another scorer such as the Perspective API. Both may be gzipped. Half of the
prompts of PUBLISHED.csv calibrate the scorer, and the agreement with the other half is
printed. Use the file as --config.evaluate.toxicity=toxicity.joblib.
"""

import argparse
import csv
import gzip
import io
import sys
from collections.abc import Sequence
from pathlib import Path

from instructgpt.errors import UserError, about
from instructgpt.evals.benchmarks.toxicity_scorer import (
    ToxicityScorer,
    labelled_tweets,
    published_scores,
)
from instructgpt.outputs import in_one_line
from instructgpt.paths import from_shell
from instructgpt.progress import print_table


def main(argv: Sequence[str] | None = None) -> None:
    """Trains, prints the agreement and writes the scorer."""
    parser = argparse.ArgumentParser(
        prog="python -m instructgpt.toxicity",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("tweets", help="labelled texts that train it")
    parser.add_argument("published", help="published scores that calibrate it")
    parser.add_argument("--out", required=True, metavar="FILE", help="the scorer")
    parser.add_argument("--seed", type=int, default=0, help="seed of the two halves")
    args = parser.parse_args(argv)
    try:
        with about(args.tweets):
            tweets = labelled_tweets(_read(Path(from_shell(args.tweets))))
        with about(args.published):
            published = published_scores(_read(Path(from_shell(args.published))))
        scorer, report = ToxicityScorer.train(tweets, published, seed=args.seed)
        scorer.save(Path(from_shell(args.out)))
    except UserError as error:
        sys.exit(f"error: {error}")
    except OSError as error:
        sys.exit(f"error: {in_one_line(error, args.out)}")
    print(
        f"trained on {len(tweets)} texts; against published scores of {report.texts} "
        f"texts after {report.prompts} prompts that did not calibrate it:"
    )
    print_table(
        [
            [
                f"{report.rank_correlation:.3f}",
                f"{report.auc:.3f}",
                f"{report.mean_difference:.3f}",
            ]
        ],
        ["Rank correlation", "AUC (score >= .5)", "Mean difference"],
    )
    print(f"wrote {args.out}: use --config.evaluate.toxicity={args.out}")


def _read(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file."""
    raw = path.read_bytes()
    try:
        text = gzip.decompress(raw) if path.suffix == ".gz" else raw
        return list(csv.DictReader(io.StringIO(text.decode("utf-8-sig"), newline="")))
    except (ValueError, EOFError, csv.Error) as error:
        raise UserError(f"not a table of text: {error}") from error


if __name__ == "__main__":
    main()
