"""The operations that a model is made of, and the one place where a way is chosen.

`operations(config)` gives the plain ways of reference.py, or the fast ones of
selection.py, which look at backend, dtype and shape.
"""

import importlib
from collections.abc import Callable
from typing import NamedTuple

import jax

from instructgpt.models.config import ModelConfig


class Head(NamedTuple):
    """What the functions of the language-model head share; static under jit."""

    vocab_size: int  # rows of the table from here on are never predicted
    dtype: str  # that products are made in
    chunk: int  # tokens of a device whose logits exist at one time
    temperature: float = 1.0


class Operations(NamedTuple):
    """One way to compute each operation, whose arguments reference.py documents."""

    linear: Callable
    project_heads: Callable
    normalize: Callable
    attention: Callable
    logits: Callable
    token_log_probs: Callable
    weighted_nll: Callable


def operations(config: ModelConfig) -> Operations:
    """The operations of a model: fast ones, or only the reference."""
    # Imported here, so that a model of reference operations needs no fast module.
    name = "reference" if config.kernels == "reference" else "selection"
    chosen = importlib.import_module(f"instructgpt.models.kernels.{name}")
    return Operations(*(getattr(chosen, field) for field in Operations._fields))


def platform() -> str:
    """What programs are made for now: cpu, gpu or tpu.

    It is that of the mesh, whose devices need not be there, or JAX's own without one.
    """
    mesh = jax.sharding.get_abstract_mesh()
    device = None if mesh.empty else mesh.abstract_device
    return jax.default_backend() if device is None else device.platform
