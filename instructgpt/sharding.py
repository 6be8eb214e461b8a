"""Parallel layout: one table that maps logical axis names to mesh axes.

The mesh has three axes: `data` (replicas), `fsdp` (shards of parameters, optimiser
state and batch) and `tensor` (shards of heads, MLP width and vocabulary). The code uses
only logical names; to change the layout, change the table.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import mesh_utils, multihost_utils
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from instructgpt.errors import UserError
from instructgpt.ranges import NonNegativeInt

T = TypeVar("T")

AXES = ("data", "fsdp", "tensor")

# Logical axis -> mesh axes. Parameters are w[embed_fsdp, mlp_tensor]. Activations are
# sharded over `batch` and keep their full width between layers, see Layout.
RULES: dict[str, tuple[str, ...] | None] = {
    "batch": ("data", "fsdp"),
    "replica": ("data",),
    "tokens": ("tensor",),
    "layers": None,
    "embed": ("fsdp",),
    "heads": ("tensor",),
    "kv_heads": ("tensor",),
    "head_dim": None,
    "mlp": ("tensor",),
    "vocab": ("tensor",),
    "position": None,
    "replicated": None,
}


Layout = Literal["rows", "tokens", "width"]  # see `constrain_residual`


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Number of devices along each mesh axis; -1 on one axis takes all that remain."""

    data: int = -1
    fsdp: int = 1
    tensor: int = 1
    # Largest number of devices to use, in a single process on a CPU; 0: all.
    cpu_devices: NonNegativeInt = 0


def make_mesh(
    config: MeshConfig, *, devices: Sequence[jax.Device] | None = None
) -> Mesh:
    """Builds the mesh `data x fsdp x tensor`, with several TPU slices along `data`.

    Raises:
      UserError: the product of the sizes is not the number of devices, `data` is not a
        multiple of the number of slices, or a number of devices is negative.
    """
    devices = jax.devices() if devices is None else list(devices)
    if config.cpu_devices < 0:
        raise UserError(f"config.mesh.cpu_devices={config.cpu_devices}: give 0 or more")
    if devices[0].platform == "cpu" and jax.process_count() == 1:
        devices = devices[: config.cpu_devices or None]
    sizes = [config.data, config.fsdp, config.tensor]
    known = math.prod(s for s in sizes if s != -1)
    if sizes.count(-1) > 1 or known < 1 or any(s < 1 and s != -1 for s in sizes):
        raise UserError(
            f"config.mesh: data={config.data} fsdp={config.fsdp} "
            f"tensor={config.tensor} is not a mesh; use positive sizes and at most "
            "one -1"
        )
    sizes = [len(devices) // known if s == -1 else s for s in sizes]
    if math.prod(sizes) != len(devices):
        raise UserError(
            f"config.mesh: data x fsdp x tensor = {' x '.join(map(str, sizes))} does "
            f"not use all {len(devices)} devices; make the product "
            f"{len(devices)} (or set one axis to -1)"
        )
    grid = device_grid(sizes, devices)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def device_grid(sizes: list[int], devices: Sequence[Any]) -> np.ndarray:
    """Arranges devices in an array of these sizes, with neighbours side by side.

    TPU slices are joined by a slow network, so each slice holds all weights and none
    are gathered over that network.
    """
    slices = 1
    if devices[0].platform == "tpu":  # a TPU that is only planned may have no index
        slices = len({getattr(device, "slice_index", 0) for device in devices})
    if sizes[0] % slices:
        raise UserError(
            f"config.mesh: data={sizes[0]} does not divide over {slices} TPU slices; "
            f"make it a multiple of {slices}, so that fsdp and tensor lie within one"
        )
    # Unlike in `jax.make_mesh`, an axis may take a part of a slice's side.
    if slices == 1:
        return mesh_utils.create_device_mesh(
            sizes, devices, allow_split_physical_axes=True
        )
    return mesh_utils.create_hybrid_device_mesh(
        [sizes[0] // slices, *sizes[1:]],
        [slices, 1, 1],
        devices,
        allow_split_physical_axes=True,
    )


def batch_ways(mesh: Mesh | AbstractMesh) -> int:
    """Number of devices that the rows of a batch are sharded over."""
    return math.prod(mesh.shape[a] for a in RULES["batch"] or ())


def current_ways() -> int:
    """`batch_ways` of the current mesh; 1 if no mesh is set."""
    mesh = jax.sharding.get_abstract_mesh()
    return 1 if mesh.empty else batch_ways(mesh)


class Share(NamedTuple):
    """The part of each batch that this process reads; all parts have equal size."""

    process_index: int
    process_count: int  # number of parts; processes that read the same rows share one


def batch_share(mesh: Mesh) -> Share:
    """The part of a batch's rows that this process's devices hold.

    Raises:
      UserError: two processes share some, but not all, of their rows.
    """
    # The devices in one row of this grid hold the same rows of a batch.
    grid = mesh.devices.reshape(batch_ways(mesh), -1)
    held: dict[int, set[int]] = {}
    for block, devices in enumerate(grid):
        for device in devices:
            held.setdefault(device.process_index, set()).add(block)
    parts = sorted({tuple(sorted(blocks)) for blocks in held.values()})
    if sum(map(len, parts)) != len(grid) or len({len(part) for part in parts}) > 1:
        raise UserError(
            f"config.mesh: {dict(mesh.shape)} cuts a batch so that processes share "
            "some of their rows; make `tensor` a divisor or a multiple of the devices "
            "of a process"
        )
    mine = tuple(sorted(held[jax.process_index()]))
    return Share(parts.index(mine), len(parts))


def local_ways(mesh: Mesh) -> int:
    """Number of its own devices over which a process shards its rows of a batch."""
    return batch_ways(mesh) // batch_share(mesh).process_count


def max_over_processes(value: int) -> int:
    """The largest of all processes' values; every process must call this."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.process_allgather(np.array(value)).max())


def round_up(batch_size: int, mesh: Mesh) -> int:
    """The smallest batch size >= `batch_size` that divides over the mesh."""
    return -(-batch_size // batch_ways(mesh)) * batch_ways(mesh)


def check_divides(mesh: Mesh, **batch_sizes: int) -> None:
    """Raises UserError if a batch size does not divide over `data` x `fsdp`.

    Each size is passed by the config key that it comes from, with `__` for dots.
    """
    ways = batch_ways(mesh)
    for key, size in batch_sizes.items():
        if size % ways:
            name = key.replace("__", ".")
            raise UserError(
                f"config.{name}={size} does not divide over the mesh's data x fsdp = "
                f"{ways} ways; make it a multiple of {ways} or shrink config.mesh"
            )


def spec(*names: str | None) -> PartitionSpec:
    """The PartitionSpec of an array whose axes have these logical names."""
    return PartitionSpec(*(RULES[n] if n is not None else None for n in names))


def constrain(x: jax.Array, *names: str | None) -> jax.Array:
    """Pins an activation's sharding; does nothing if no mesh is set."""
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1:
        return x
    return jax.lax.with_sharding_constraint(x, spec(*names))


def moves_tokens(tokens: int, width: int) -> bool:
    """Whether a decoding step moves its tokens to the weights, not weights to them."""
    return tokens <= width


def constrain_residual(x: jax.Array, layout: Layout) -> jax.Array:
    """Pins the sharding of the residual stream [B, K, T, D] between layers.

    Args:
      x: The residual stream.
      layout: "rows" shards only rows. "tokens" also shards T over `tensor`, where it
        divides (Korthikanti et al. 2022). "width" shards D instead of B over `fsdp`, so
        that few tokens move to the weights and not weights to tokens (Pope et al.
        2022); with many tokens it is the same as "rows".
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty:
        return x
    ways = math.prod(mesh.shape[a] for a in RULES["tokens"] or ())
    if layout == "tokens" and x.shape[2] % ways == 0:
        return constrain(x, "batch", None, "tokens", None)
    if layout == "width" and moves_tokens(math.prod(x.shape[:-1]), x.shape[-1]):
        return constrain(x, "replica", None, None, "embed")
    return constrain(x, "batch", None, None, None)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of a value that is replicated on every device."""
    return NamedSharding(mesh, PartitionSpec())


def tree_shardings(boxed: Any, mesh: Mesh) -> Any:
    """Shardings of a tree of arrays that are boxed with logical axis names.

    Raises:
      UserError: an array's axis does not divide over its mesh axes.
    """

    def one(path: tuple[Any, ...], leaf: Any) -> NamedSharding:
        if not isinstance(leaf, nn.LogicallyPartitioned):
            return replicated(mesh)
        for name, size in zip(leaf.names, leaf.value.shape, strict=True):
            axes = RULES[name] if name is not None else None
            ways = math.prod(mesh.shape[a] for a in axes or ())
            if size % ways:
                raise UserError(
                    f"config.mesh: axis {name!r} of {jax.tree_util.keystr(path)} has "
                    f"size {size}, which does not divide over {ways} devices "
                    f"({' x '.join(axes or ())}); choose another mesh or model size"
                )
        return NamedSharding(mesh, spec(*leaf.names))

    return jax.tree_util.tree_map_with_path(
        one, boxed, is_leaf=lambda x: isinstance(x, nn.LogicallyPartitioned)
    )


def block_until_ready_on_cpu(outputs: T) -> T:
    """Returns outputs of a program, after waiting for them on a CPU with many devices.

    XLA's devices on a CPU share one pool of threads. While a step's devices wait for
    each other, the next step may hold the threads that they need, a deadlock. Code that
    starts several programs over the mesh without fetching their results must therefore
    call this on the outputs of each.
    """
    if jax.default_backend() == "cpu" and jax.local_device_count() > 1:
        jax.block_until_ready(outputs)
    return outputs


def put_batch(batch: Any, mesh: Mesh) -> Any:
    """Moves this process's rows of a batch to its devices, sharded over `batch`.

    Args:
      batch: A tree of NumPy arrays [B / parts, ...], the part of the batch that
        `batch_share` gives this process.
      mesh: The mesh of the devices.
    """
    sharding = NamedSharding(mesh, spec("batch"))

    def put(x: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(sharding, np.asarray(x))

    return jax.tree.map(put, batch)


def put_whole_batch(batch: Any, mesh: Mesh) -> Any:
    """Like `put_batch`, for a batch [B, ...] of which every process has all rows."""
    sharding = NamedSharding(mesh, spec("batch"))

    def put(x: np.ndarray) -> jax.Array:
        x = np.asarray(x)
        return jax.make_array_from_callback(x.shape, sharding, lambda rows: x[rows])

    return jax.tree.map(put, batch)


def split_rows(batch: T, parts: int) -> T:
    """[B, ...] -> [parts, B / parts, ...], strided so that rows keep their device."""

    def one(x: jax.Array) -> jax.Array:
        rows = x.shape[0] // parts
        return x.reshape((rows, parts) + x.shape[1:]).swapaxes(0, 1)

    return jax.tree.map(one, batch)


def join_rows(parts: T) -> T:
    """The inverse of `split_rows`."""

    def one(x: jax.Array) -> jax.Array:
        return x.swapaxes(0, 1).reshape(-1, *x.shape[2:])

    return jax.tree.map(one, parts)
