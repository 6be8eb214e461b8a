"""What a compiled program sends between devices, read from its text.

A loop's body counts as often as it runs. Bytes are those that a device receives when
the others pass theirs around a ring: of n parts of a whole, n - 1.
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
# A collective that goes on while others compute appears where it starts, in each of
# them, and where it ends.
_CONTINUED = "async_collective_fusion"
_ENDED = ("%async-collective-done", "ROOT %async-collective-done")
_GROUPS = re.compile(r"replica_groups=\[(\d+),(\d+)\]")
_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_MESH = re.compile(r"replica_groups=mesh\[([^\]]*)\] ?\{([^}]*)\}")

ONCE = Trips()


def shape_bytes(text: str) -> list[float]:
    """Bytes of each array that a type names, in order."""
    out = []
    for dtype, dims in _SHAPE.findall(text):
        bits = re.search(r"\d+", dtype)
        size = _BYTES.get(dtype, int(bits.group()) / 8 if bits else 4)
        for dim in filter(None, dims.split(",")):
            size *= int(dim)
        out.append(size)
    return out


def computations(text: str) -> tuple[str, dict[str, list[str]]]:
    """The entry's name, and the instructions of every computation by its name."""
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
    """Devices of a group; 0 if the instruction does not say."""
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
    """Kind and bytes of an instruction of the computation `inside`."""
    found = _OPERATION.search(line)
    if not found or inside.startswith(_CONTINUED):
        return None
    kind = found.group(1)
    result = line.partition(" = ")[2][: found.start()].partition(f" {kind}")[0]
    sizes = shape_bytes(result)
    if not sizes:
        return None
    # An operation that is only started returns its operands as well.
    size = max(sizes) if found.group(2) else sum(sizes)
    ways = _ways(line)
    share = (ways - 1) / ways if ways else 1.0
    if kind == "reduce-scatter" and not found.group(2):
        return kind, size * max(ways - 1, 1)  # of the part that a device keeps
    if kind == "all-reduce":
        # A sum of which each device keeps its part.
        if "all-reduce-scatter" in inside:
            return "reduce-scatter", size * share
        return kind, 2 * size * share
    if kind == "collective-permute":
        return kind, size
    return kind, size * share


def gathered_shapes(text: str) -> set[tuple[int, ...]]:
    """Shapes of what a program's all-gathers make, on a device.

    Parameters that are cut over devices are gathered a layer at a time: a shape with an
    axis of layers is gathered by accident.
    """
    shapes = set()
    for line in text.splitlines():
        found = _OPERATION.search(line)
        if found and found.group(1) == "all-gather":
            for _, dims in _SHAPE.findall(line[: found.start()]):
                shapes.add(tuple(int(n) for n in dims.split(",") if n))
    return shapes


def _known_trips(line: str, all_lines: dict[str, list[str]]) -> int:
    """How often a loop runs, as it says or as it counts from 0; 0: as the data says."""
    known, loop = _TRIPS.search(line), _LOOP.search(line)
    if known:
        return int(known.group(1))
    if not loop:
        return 0
    # 1. the condition compares one entry of the state with a number
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
    """Instructions by name, the last one as "ROOT" as well."""
    out = {}
    for line in lines:
        text = line.strip()
        name = text.removeprefix("ROOT ").partition(" = ")[0].lstrip("%")
        out[name] = text
        if text.startswith("ROOT "):
            out["ROOT"] = text
    return out


def _calls(line: str, times: float) -> Iterator[tuple[str, float]]:
    """Names of the computations that an instruction runs, and how often."""
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
      text: Of a compiled program.
      trips: Of loops whose count the compiler does not know.
    """
    entry, all_lines = computations(text)

    def waits(line: str) -> bool:
        return bool(_LOOP.search(line)) and not _known_trips(line, all_lines)

    @functools.cache
    def holds(name: str) -> bool:
        """Whether a loop of unknown count is in a computation or in what it calls."""
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
