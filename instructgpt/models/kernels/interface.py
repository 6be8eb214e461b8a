"""The operations of a model, and the choice between their implementations.

`operations(config)` returns the plain versions in reference.py, or the fast ones in
selection.py, which depend on backend, dtype and shape.
"""

import importlib
from collections.abc import Callable
from typing import NamedTuple

import jax

from instructgpt.models.config import ModelConfig


class HeadOptions(NamedTuple):
    """Settings of the language-model head's functions; static under jit."""

    vocab_size: int  # rows of the table from this number on are never predicted
    dtype: str  # dtype of the operands of products
    chunk: int  # number of tokens per device whose logits exist at one time
    temperature: float = 1.0


class Operations(NamedTuple):
    """One implementation of each operation; reference.py documents the arguments."""

    linear: Callable
    project_heads: Callable
    normalize: Callable
    dropout: Callable
    attention: Callable
    logits: Callable
    token_log_probs: Callable
    weighted_nll: Callable


def operations(config: ModelConfig) -> Operations:
    """The operations of a model: the fast versions, or the reference ones."""
    # Imported here, so that reference operations need none of the fast modules.
    name = "reference" if config.kernels == "reference" else "selection"
    chosen = importlib.import_module(f"instructgpt.models.kernels.{name}")
    return Operations(*(getattr(chosen, field) for field in Operations._fields))


def platform() -> str:
    """The platform that programs are compiled for now: cpu, gpu or tpu.

    It is the platform of the current mesh, whose devices need not be attached, or JAX's
    default without a mesh.
    """
    mesh = jax.sharding.get_abstract_mesh()
    device = None if mesh.empty else mesh.abstract_device
    return jax.default_backend() if device is None else device.platform
