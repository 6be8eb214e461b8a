"""What the command prints: rows, rankings, licences, empty splits, lengths."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

from instructgpt.data.lengths import Lengths, Measure, limits, measure
from instructgpt.data.origins.given import Given
from instructgpt.data.readers import Report
from instructgpt.data.records import SPLITS, Record
from instructgpt.data.splits import Placed, share_for
from instructgpt.progress import format_table


class Part(NamedTuple):
    """The records read for one name; ids start with its label."""

    kind: str
    given: Given
    records: list[Record]
    placed: list[Placed]
    report: Report


def of_split(part: Part, split: str, splits: Mapping[str, str]) -> Iterator[Record]:
    """The records of a part that are in a split."""
    for record, placed in zip(part.records, part.placed, strict=True):
        if splits[placed.group] == split:
            yield record


def split_table(parts: Sequence[Part], splits: Mapping[str, str]) -> str:
    """A table of rows per split and, for comparisons, of responses and ties."""
    rows = []
    for part in parts:
        for split in SPLITS:
            records = list(of_split(part, split, splits))
            if records:
                name = part.given.label
                rows.append([name, part.kind, split, len(records), *_rankings(records)])
    columns = ["set", "kind", "split", "rows", "rows by K", "pairs", "tied pairs"]
    return format_table(rows, columns)


def _rankings(records: Sequence[Record]) -> list[str | None]:
    """Cells with rows by K, pairs and tied pairs; None for records without ranks."""
    ranks = [record["ranks"] for record in records if "ranks" in record]
    if not ranks:
        return [None, None, None]
    sizes = Counter(map(len, ranks))
    pairs = sum(k * (k - 1) // 2 * count for k, count in sizes.items())
    tied = sum(n * (n - 1) // 2 for r in ranks for n in Counter(r).values())
    by_size = " ".join(f"{k}:{count}" for k, count in sorted(sizes.items()))
    return [by_size, str(pairs), str(tied)]


def source_table(parts: Sequence[Part]) -> str:
    """A table of each set's licence, and of what its reader left out or decided."""
    lines = []
    for part in parts:
        lines.append(f"{part.given.label} {part.kind} (licence: {part.given.licence})")
        for verb, counts in (
            ("left out", part.report.skipped),
            ("noted", part.report.noted),
        ):
            lines += [f"  {verb} {n:>7}  {what}" for what, n in counts.most_common()]
    return "\n".join(lines)


def empty_splits(
    parts: Sequence[Part],
    splits: Mapping[str, str],
    shares: Mapping[str, float],
    seed: int,
) -> Iterator[str]:
    """A line for each split that should have records of a kind and has none."""
    for kind in dict.fromkeys(part.kind for part in parts):
        placed = [p for part in parts if part.kind == kind for p in part.placed]
        found = {splits[item.group] for item in placed}
        for split in SPLITS:
            if split in found or not (split == "train" or shares.get(split)):
                continue
            groups = len({item.group for item in placed})
            blocks = kind == "documents" and any(
                part.given.label == "plain_text"
                and len(part.records) <= len(part.given.files)
                for part in parts
            )
            if split == "train":
                remedy = "lower --valid and --test, or give more"
            else:
                share = share_for(split, placed, shares=shares, seed=seed)
                remedy = f"--{split}={share:g} gives some" if share else "give more"
            yield (
                f"no {split} {kind}: none of the {groups} different ones fell into"
                f" this split; {remedy}"
                + (", or --option=plain_text.per=block to take paragraphs" * blocks)
            )


def length_tables(parts: Sequence[Part], how: Measure) -> Iterator[str]:
    """Percentiles of lengths, and what limits of lengths would leave out or cut."""
    measured = {
        kind: measure([r for p in parts if p.kind == kind for r in p.records], how)
        for kind in dict.fromkeys(part.kind for part in parts)
    }
    rows = []
    for kind, lengths in measured.items():
        for one in lengths:
            total = int(one.values.sum() / one.of_all)
            percentiles = [one.at(percent) for percent in (50, 90, 99, 100)]
            rows.append([kind, one.part, *percentiles, f"{total:,}"])
    columns = ["kind", "part", "50 %", "90 %", "99 %", "longest", "in all"]
    yield f"lengths in {how.unit}"
    yield format_table(rows, columns)
    some = min(one.of_all for lengths in measured.values() for one in lengths)
    if some < 1:
        yield f"(measured on {some:.0%} of the records, evenly spaced)"
    yield from _limit_table(measured, how)


def _limit_table(
    measured: Mapping[str, Sequence[Lengths]], how: Measure
) -> Iterator[str]:
    cells: list[tuple[str, Callable[[int], float]]] = []
    for kind, lengths in measured.items():
        for one in lengths:
            if one.part == "prompt":
                cells.append((f"{kind}: prompts left out", one.over))
            elif one.part == "response":
                what = "cut" if kind == "comparisons" else "left out"
                cells.append((f"{kind}: answers {what}", one.over))
    rows = [
        [str(limit), *(f"{over(limit):.1%}" for _, over in cells)]
        for limit in limits(measured)
    ]
    if rows:
        yield ""
        yield (
            "what config.data.max_prompt (prompts) and config.data.max_response"
            f" (answers) would leave out or cut, as limits in {how.unit}"
        )
        yield format_table(rows, ["limit", *(name for name, _ in cells)])
