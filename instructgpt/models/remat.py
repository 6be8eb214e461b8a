"""What a layer keeps of its forward pass, and what its backward pass computes again."""

from collections.abc import Callable
from typing import Any

import jax

from instructgpt.models.config import ModelConfig

# `checkpoint_name`s of arrays that are kept beside matrix products: results of
# operations with a backward pass of their own, which a policy cannot look into, and
# small arrays that would cost much to compute again.
KEPT = "kept"


def _keeps_named(policy: Callable[..., bool]) -> Callable[..., bool]:
    """The policy, which also keeps what is named KEPT and a library's attention."""

    def saves(primitive: Any, *args: Any, **params: Any) -> bool:
        named = primitive.name == "name" and params["name"] == KEPT
        attention = "dot_product_attention" in primitive.name
        return named or attention or policy(primitive, *args, **params)

    return saves


_POLICIES = {
    "elementwise": _keeps_named(jax.checkpoint_policies.dots_saveable),
    "dots": _keeps_named(jax.checkpoint_policies.dots_with_no_batch_dims_saveable),
    "full": None,
}


def remat(config: ModelConfig, transform: Callable[..., Any], layer: Any) -> Any:
    """A layer that computes again what `config.remat` says.

    Args:
      config: The model's.
      transform: `nn.remat` for a module, or `jax.checkpoint` for a function.
      layer: The module or function.
    """
    if config.remat == "none":
        return layer
    # The iterations of a loop over layers are never merged with each other.
    return transform(
        layer, policy=_POLICIES[config.remat], prevent_cse=not config.scan_layers
    )
