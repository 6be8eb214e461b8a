"""Which activations of a layer are kept, and which the backward pass recomputes."""

from collections.abc import Callable
from typing import Any

import jax

from instructgpt.models.config import ModelConfig

# The `checkpoint_name` of arrays that are kept besides matrix products: results of
# operations with a custom backward pass, which a policy cannot look into, and small
# arrays that would cost much to recompute.
KEPT = "kept"


def _keeps_named(policy: Callable[..., bool]) -> Callable[..., bool]:
    """A policy that also keeps what is named KEPT and the attention of libraries."""

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
    """Wraps a layer so that its backward pass recomputes what `config.remat` says.

    Args:
      config: The model's config.
      transform: `nn.remat` for a module, or `jax.checkpoint` for a function.
      layer: The module or function.
    """
    if config.remat == "none":
        return layer
    # In a loop over layers nothing can merge recomputed operations with the forward
    # pass's, so common-subexpression elimination need not be turned off.
    return transform(
        layer, policy=_POLICIES[config.remat], prevent_cse=not config.scan_layers
    )
