"""Converts public tensors to our parameters on a mesh, and back, one at a time.

Our arrays of layers are stacked, [L, ...]. Each layer's tensor is written into its
place on the devices, so the host never holds more than one tensor.
"""

import dataclasses
import functools
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import einops
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from instructgpt.arrays import Params
from instructgpt.errors import UserError
from instructgpt.models.config import ModelConfig
from instructgpt.models.hf.families import Family, Rule, rules_of
from instructgpt.models.hf.tensors import Tensor, TensorSource

_FLOATS = ("F64", "F32", "F16", "BF16")
# Suffixes of the tensors, such as scales, that accompany quantised weights.
_SCALES = (
    *(".scales", ".qzeros", ".weight_scale", ".weight_scale_inv", ".input_scale"),
    *(".absmax", ".quant_map", ".SCB", ".weight_zero_point"),
)


class Item(NamedTuple):
    """One public tensor of a model."""

    rule: Rule
    layer: int | None  # number of the layer; None for a tensor outside of the layers
    shape: tuple[int, ...]


def expected(family: Family, config: ModelConfig, layout: Params) -> dict[str, Item]:
    """Every public tensor of a model, by name.

    Args:
      family: The model's family.
      config: The model's config.
      layout: ShapeDtypeStructs of the model's parameters.
    """
    items = {}
    for rule in rules_of(family, config):
        shapes = []
        for path in rule.ours:
            shape = _at(layout, path).shape
            if rule.pattern.startswith("v "):
                shape = (config.vocab_size, *shape[1:])
            shapes.append(shape[1:] if rule.per_layer else shape)
        theirs = jax.eval_shape(
            functools.partial(_to_theirs, rule, config),
            [jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes],
        ).shape
        for layer in range(config.num_layers) if rule.per_layer else [None]:
            items[rule.theirs.format(layer)] = Item(rule, layer, theirs)
    return items


def settle_head(
    source: TensorSource, family: Family, config: ModelConfig
) -> ModelConfig:
    """The config, with the head untied if the files hold an unembedding of their own.

    A config.json may tie the head to the embedding although the files hold both. As in
    transformers, an unembedding that differs from the embedding is used for the logits.

    Args:
      source: The source of the tensors.
      family: The model's family.
      config: The model's config, as read from config.json.
    """
    found = source.tensors()
    whole = family.trunk + family.embedding
    name = whole if whole in found else family.embedding
    if not config.tied_head or family.head not in found or name not in found:
        return config
    if np.array_equal(source.read(name), source.read(family.head)):
        return config
    return dataclasses.replace(config, tied_head=False)


def check_tensors(
    found: Mapping[str, Tensor],
    items: Mapping[str, Item],
    family: Family,
    *,
    quantised: str = "",
) -> dict[str, str]:
    """Matches the tensors of a source with those of the model.

    The trunk's prefix may be missing from all names, as in the files of GPT-2. Buffers
    are ignored. A copy of a tied unembedding is ignored too, unless the embedding is
    missing: then the copy takes its place.

    Args:
      found: The tensors of the source.
      items: The tensors of the model.
      family: The model's family.
      quantised: The quantisation that config.json names, for messages.

    Returns:
      The name in the source of each item.

    Raises:
      UserError: a tensor is missing, has another shape, belongs to no item, or is
        quantised.
    """
    found = {n: t for n, t in found.items() if not n.endswith(family.buffers)}
    _check_types(found, quantised)
    names = {}
    embedding = family.trunk + family.embedding
    tied = family.head not in items
    moved = tied and not {embedding, family.embedding} & found.keys()
    for name, tensor in found.items():
        whole = name
        if name not in items and family.trunk + name in items:
            whole = family.trunk + name
        if name == family.head and tied:
            if not moved:
                continue
            whole = embedding
        item = items.get(whole)
        if item is None:
            raise UserError(
                f"{tensor.file}: unexpected tensor {name!r}; does config.json belong "
                "to this file?"
            )
        if tuple(tensor.shape) != item.shape:
            raise UserError(
                f"{tensor.file}: {name!r} has shape {tuple(tensor.shape)}, config.json "
                f"makes it {item.shape}; do they belong together?"
            )
        names[whole] = name
    missing = [name for name in items if name not in names]
    if missing:
        where = next(iter(found.values())).file if found else "the folder"
        raise UserError(
            f"{where}: tensor {missing[0]!r} is missing"
            + (f", and {len(missing) - 1} more" if len(missing) > 1 else "")
            + "; copy all files of the model"
        )
    return names


def _check_types(found: Mapping[str, Tensor], quantised: str) -> None:
    """Raises UserError for integers and 8-bit floats, whose scales are not read."""
    for name, tensor in found.items():
        scale = name.endswith(_SCALES)
        if tensor.dtype not in _FLOATS or scale:
            what = "holds scales of" if scale else f"is of type {tensor.dtype}:"
            said = f" ({quantised})" if quantised else ""
            raise UserError(
                f"{tensor.file}: {name!r} {what} quantised weights{said}; take the "
                "model's plain weights, in float32, float16 or bfloat16"
            )


def import_params(
    source: TensorSource,
    items: Mapping[str, Item],
    names: Mapping[str, str],
    *,
    config: ModelConfig,
    layout: Params,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Params:
    """Reads parameters onto the devices as float32.

    Args:
      source: The source of the tensors.
      items: The result of `expected`.
      names: The result of `check_tensors`.
      config: The model's config.
      layout: ShapeDtypeStructs with shardings of the model's parameters.
      progress: Called with the number of tensors read and their total number.

    Raises:
      UserError: a tensor holds NaN or infinity.
    """
    order = {name: number for number, name in enumerate(source.tensors())}
    params = jax.tree.map(lambda leaf: None, layout)
    for done, name in enumerate(sorted(items, key=lambda n: order[names[n]]), start=1):
        item = items[name]
        tensor = read_finite(source, names[name])
        ours = _to_ours(item.rule, config, tensor)
        for path, value in zip(item.rule.ours, ours, strict=True):
            leaf = _at(layout, path)
            if item.rule.pattern.startswith("v "):
                rows = leaf.shape[0] - value.shape[0]
                value = np.pad(value, ((0, rows), (0, 0)))
            if item.layer is None:
                _put(params, path, on_devices(value, leaf))
            else:
                stack = _at(params, path)
                stack = _zeros(leaf) if stack is None else stack
                stack = _write_layer(stack, value, item.layer, sharding=leaf.sharding)
                _put(params, path, stack)
        progress(done, len(items))
    return params


def import_score(
    source: TensorSource,
    found: Tensor | None,
    layout: Params,
    *,
    name: str,
    bias: float,
    where: str,
) -> Params:
    """Reads the head of a reward model onto the devices: its kernel and bias.

    Args:
      source: The source of the tensors.
      found: The head's tensor, [1, D]; None if there is none.
      layout: ShapeDtypeStructs of the whole reward model.
      name: Name of the head's tensor.
      bias: Number added to every score.
      where: The file that declares a reward model, for messages.

    Raises:
      UserError: there is no head, or it has several labels.
    """
    if found is None:
        raise UserError(
            f"{where} describes a reward model, but tensor {name!r} is missing; copy "
            "all files of the model"
        )
    kernel, offset = layout["kernel"], layout["bias"]
    if tuple(found.shape) != (1, *kernel.shape) or found.dtype not in _FLOATS:
        raise UserError(
            f"{found.file}: {name!r} is {found.dtype}{list(found.shape)}; a reward "
            f"model gives one score of floats, {[1, *kernel.shape]}"
        )
    return {
        "kernel": on_devices(read_finite(source, name)[0], kernel),
        "bias": on_devices(np.asarray(bias, np.float32), offset),
    }


def read_finite(source: TensorSource, name: str) -> np.ndarray:
    """Reads a tensor as float32.

    Raises:
      UserError: the tensor holds NaN or infinity, or numbers too large for float32.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        tensor = source.read(name).astype(np.float32)
    if not np.isfinite(tensor).all():
        raise UserError(
            f"{source.tensors()[name].file}: {name!r} holds NaN or infinity; copy the "
            "file again, or take weights that are whole"
        )
    return tensor


def export_tensor(item: Item, params: Params, *, config: ModelConfig) -> np.ndarray:
    """One public tensor as float32 on the host.

    Args:
      item: The tensor.
      params: All parameters of the model.
      config: The model's config.
    """
    parts = []
    for path in item.rule.ours:
        value = _at(params, path)
        if item.rule.pattern.startswith("v "):
            value = value[: config.vocab_size]
        parts.append(value if item.layer is None else value[item.layer])
    return np.ascontiguousarray(
        jax.device_get(_to_theirs(item.rule, config, parts)), np.float32
    )


def _sizes(pattern: str, config: ModelConfig, joined: int) -> dict[str, int]:
    sizes = {
        "h": config.num_heads,
        "g": config.num_kv_heads,
        "c": config.head_dim,
        "n": joined,
    }
    return {axis: n for axis, n in sizes.items() if re.search(rf"\b{axis}\b", pattern)}


def _to_ours(rule: Rule, config: ModelConfig, tensor: np.ndarray) -> list[np.ndarray]:
    """Splits a public tensor into the arrays of ours that it joins, for one layer."""
    sizes = _sizes(rule.pattern, config, len(rule.ours))
    out = einops.rearrange(tensor, rule.pattern, **sizes)
    return list(out) if len(rule.ours) > 1 else [out]


def _to_theirs(rule: Rule, config: ModelConfig, parts: list[Any]) -> Any:
    """The inverse of `_to_ours`."""
    sizes = _sizes(rule.pattern, config, len(rule.ours))
    theirs, _, ours = rule.pattern.partition(" -> ")
    whole = jnp.stack(parts) if len(parts) > 1 else parts[0]
    return einops.rearrange(whole, f"{ours} -> {theirs}", **sizes)


def on_devices(value: np.ndarray, leaf: jax.ShapeDtypeStruct) -> jax.Array:
    """Moves an array of the host to devices, with the layout's sharding."""
    value = np.asarray(value, order="C")  # contiguous; a scalar keeps its shape ()
    return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda i: value[i])


def _zeros(leaf: jax.ShapeDtypeStruct) -> jax.Array:
    return _maker(leaf.shape, leaf.dtype, leaf.sharding)()


@functools.cache
def _maker(
    shape: tuple[int, ...], dtype: Any, sharding: NamedSharding
) -> Callable[[], jax.Array]:
    return jax.jit(lambda: jnp.zeros(shape, dtype), out_shardings=sharding)


def _write_layer(
    stack: jax.Array, value: np.ndarray, layer: int, *, sharding: NamedSharding
) -> jax.Array:
    spec = PartitionSpec(*sharding.spec[1:])
    leaf = jax.ShapeDtypeStruct(
        value.shape, value.dtype, sharding=NamedSharding(sharding.mesh, spec)
    )
    return _writer(sharding)(stack, on_devices(value, leaf), layer)


@functools.cache
def _writer(sharding: NamedSharding) -> Callable[..., jax.Array]:
    @functools.partial(jax.jit, donate_argnums=0, out_shardings=sharding)
    def write(stack: jax.Array, one: jax.Array, layer: jax.Array) -> jax.Array:
        return jax.lax.dynamic_update_index_in_dim(stack, one, layer, axis=0)

    return write


def _at(tree: Params, path: str) -> Any:
    for key in path.split("/"):
        tree = tree[key]
    return tree


def _put(tree: Params, path: str, value: Any) -> None:
    *parents, last = path.split("/")
    for key in parents:
        tree = tree[key]
    tree[last] = value


def shards(
    items: Mapping[str, Item], *, bytes_per_value: int, max_bytes: int
) -> Iterator[list[str]]:
    """Groups of one or more names, whose tensors stay under `max_bytes` together."""
    group: list[str] = []
    size = 0
    for name, item in items.items():
        own = int(np.prod(item.shape)) * bytes_per_value
        if group and size + own > max_bytes:
            yield group
            group, size = [], 0
        group.append(name)
        size += own
    if group:
        yield group
