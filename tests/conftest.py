"""Settings of every test: eight CPU devices, strict shapes, cached compilations."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# In the environment rather than in jax.config, so that processes which tests
# start share the cache too.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPO / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")

import jax
import jaxtyping
import numpy as np
import pytest

import tests.array_types  # noqa: F401  # the hook below finds it by name

jax.config.update("jax_num_cpu_devices", 8)
# A silent broadcast of [B] against [B, T] is a bug in a loss, not a convenience.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Must come before the first import of the package; costs only at trace time.
jaxtyping.install_import_hook("instructgpt", "tests.array_types.check_arrays")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Shares the tests out to processes by file, and the longest group first.

    All files that look at the finished recipe are one group, so that it runs once.
    """

    def of_recipe(item: pytest.Item) -> bool:
        return hasattr(getattr(item, "module", None), "finished")

    items.sort(key=lambda item: not of_recipe(item))
    for item in items:
        group = "recipe" if of_recipe(item) else str(item.path)
        item.add_marker(pytest.mark.xdist_group(group))


@pytest.fixture
def rng() -> np.random.Generator:
    """NumPy random numbers, the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture
def key() -> jax.Array:
    """JAX random key, the same in every run."""
    return jax.random.key(0)
