"""Bytes that a compiled program sends between devices, read from its HLO text.

A loop's body is counted once per iteration. Bytes are those that a device receives in
a ring algorithm: n - 1 of the n parts of an array.
"""

import functools
import math
import re
from collections import defaultdict
from collections.abc import Iterator

from instructgpt.stages.programs import Trips

_BYTES = {"pred": 1, "s4": 0.5, "u4": 0.5, "bf16": 2}
_KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
)
_SHAPE = re.compile(r"\b(pred|bf16|[fsuc]\d+\w*)\[([\d,]*)\]")
_OPERATION = re.compile(rf" ({'|'.join(_KINDS)})(-start)?\(")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}')
_LOOP = re.compile(
    r" while\(.*\bcondition=%?(?P<condition>[\w.\-]+).*\bbody=%?(?P<body>[\w.\-]+)"
)
_COMPARE = re.compile(
    r" compare\(%(?P<counter>[\w.\-]+), %(?P<limit>[\w.\-]+)\), direction=LT"
)
_CONSTANT = re.compile(r" [su]32\[\]\S* constant\((\d+)\)")
_ENTRY = re.compile(r" get-tuple-element\(.*\bindex=(\d+)")
_ADD = re.compile(r" [su]32\[\]\S* add\(%([\w.\-]+), %([\w.\-]+)\)")
_NAME = re.compile(r"%([\w.\-]+)")
# An asynchronous collective appears where it starts, in each computation that it
# overlaps, and where it ends.
_CONTINUED = "async_collective_fusion"
_ENDED = ("%async-collective-done", "ROOT %async-collective-done")
_GROUPS = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}")

ONCE = Trips()


def shape_bytes(text: str) -> list[float]:
    """Bytes of each array in a type, in order."""
    out = []
    for dtype, dims in _SHAPE.findall(text):
        bits = re.search(r"\d+", dtype)
        size = _BYTES.get(dtype, int(bits.group()) / 8 if bits else 4)
        for dim in filter(None, dims.split(",")):
            size *= int(dim)
        out.append(size)
    return out


def computations(text: str) -> tuple[str, dict[str, list[str]]]:
    """The entry's name, and the instructions of all computations by name."""
    entry, name = "", ""
    out: dict[str, list[str]] = {}
    for line in text.splitlines():
        if line and not line[0].isspace() and line.rstrip().endswith("{"):
            words = line.split()
            name = words[words[0] == "ENTRY"].lstrip("%").partition("(")[0]
            entry = name if words[0] == "ENTRY" else entry
            out[name] = []
        elif name and line.startswith("  "):
            out[name].append(line)
    return entry, out


def _ways(line: str) -> int:
    """Number of devices in a group; 0 if the instruction does not say."""
    counted, listed, mesh = (p.search(line) for p in (_GROUPS, _LISTED, _MESH))
    if counted:
        return int(counted.group(2))
    if listed:
        return len(listed.group(1).split(","))
    if not mesh:
        return 0
    sizes = dict(axis.split("=") for axis in mesh.group(1).split(","))
    return math.prod(int(sizes[axis.strip()]) for axis in mesh.group(2).split(","))


def _collective(line: str, inside: str) -> tuple[str, float] | None:
    """Kind and bytes of a collective instruction in the computation `inside`."""
    found = _OPERATION.search(line)
    if not found or inside.startswith(_CONTINUED):
        return None
    kind = found.group(1)
    result = line.partition(" = ")[2][: found.start()].partition(f" {kind}")[0]
    sizes = shape_bytes(result)
    if not sizes:
        return None
    # An instruction that only starts a collective also returns its operands.
    size = max(sizes) if found.group(2) else sum(sizes)
    ways = _ways(line)
    share = (ways - 1) / ways if ways else 1.0
    if kind == "reduce-scatter" and not found.group(2):
        return kind, size * max(ways - 1, 1)  # size is that of the kept part
    if kind == "all-reduce":
        # A fused all-reduce of which each device keeps only its part.
        if "all-reduce-scatter" in inside:
            return "reduce-scatter", size * share
        return kind, 2 * size * share
    if kind == "collective-permute":
        return kind, size
    return kind, size * share


def gathered_shapes(text: str) -> set[tuple[int, ...]]:
    """Shapes, on a device, of the results of a program's all-gathers.

    Sharded parameters should be gathered one layer at a time, so a shape with an axis
    of layers shows an accidental gather.
    """
    shapes = set()
    for line in text.splitlines():
        found = _OPERATION.search(line)
        if found and found.group(1) == "all-gather":
            for _, dims in _SHAPE.findall(line[: found.start()]):
                shapes.add(tuple(int(n) for n in dims.split(",") if n))
    return shapes


def _known_trips(line: str, all_lines: dict[str, list[str]]) -> int:
    """Number of iterations of a loop; 0 if it depends on the data."""
    known, loop = _TRIPS.search(line), _LOOP.search(line)
    if known:
        return int(known.group(1))
    if not loop:
        return 0
    # 1. the condition compares one entry of the loop's state with a number
    condition = _definitions(all_lines.get(loop["condition"], []))
    compared = _COMPARE.search(condition.get("ROOT", ""))
    limit = _CONSTANT.search(condition.get(compared["limit"], "")) if compared else None
    entry = _ENTRY.search(condition.get(compared["counter"], "")) if compared else None
    if not limit or not entry:
        return 0
    # 2. the body adds a number to that entry
    body = _definitions(all_lines.get(loop["body"], []))
    state = _NAME.findall(body.get("ROOT", "").partition(" tuple(")[2])
    added = _ADD.search(body.get(state[int(entry[1])], "")) if state else None
    steps = [_CONSTANT.search(body.get(x, "")) for x in added.groups()] if added else []
    step = sum(int(x[1]) for x in steps if x)
    return -(-int(limit[1]) // step) if step else 0


def _definitions(lines: list[str]) -> dict[str, str]:
    """Instructions by name; the last one is also under "ROOT"."""
    out = {}
    for line in lines:
        text = line.strip()
        name = text.removeprefix("ROOT ").partition(" = ")[0].lstrip("%")
        out[name] = text
        if text.startswith("ROOT "):
            out["ROOT"] = text
    return out


def _calls(line: str, times: float) -> Iterator[tuple[str, float]]:
    """Names of the computations that an instruction runs, with their counts."""
    if line.lstrip().startswith(_ENDED):
        return
    for name in _CALLED.findall(line):
        yield name, times
    branches = _BRANCHES.search(line)
    if branches:
        for name in branches.group(1).split(","):
            yield name.strip().lstrip("%"), 1


def collective_bytes(text: str, *, trips: Trips = ONCE) -> dict[str, float]:
    """Bytes that a device receives, by kind of collective.

    Args:
      text: The HLO text of a compiled program.
      trips: Numbers of iterations of loops that depend on the data.
    """
    entry, all_lines = computations(text)

    def waits(line: str) -> bool:
        return bool(_LOOP.search(line)) and not _known_trips(line, all_lines)

    @functools.cache
    def holds(name: str) -> bool:
        """Whether a computation or its callees contain a data-dependent loop."""
        lines = all_lines.get(name, ())
        return any(
            waits(line) or any(holds(called) for called, _ in _calls(line, 1))
            for line in lines
        )

    @functools.cache
    def total(name: str, inside: bool) -> dict[str, float]:
        out: dict[str, float] = defaultdict(float)
        for line in all_lines.get(name, ()):
            own = _collective(line, name)
            if own:
                out[own[0]] += own[1]
            times, within = 1.0, inside
            if waits(line):
                around = any(holds(called) for called, _ in _calls(line, 1))
                within = inside or around
                times = trips.inner if inside else trips.alone
                times = trips.outer if around else times
            elif _LOOP.search(line):
                times = _known_trips(line, all_lines)
            for called, count in _calls(line, times):
                for kind, size in total(called, within).items():
                    out[kind] += size * count
        return out

    return dict(total(entry, False))
