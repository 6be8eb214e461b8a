"""Settings of every test: eight CPU devices, strict shapes, cached compilations."""

import functools
import os
from importlib.metadata import version
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[1]

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# In the environment rather than in jax.config, so that processes which tests
# start share the cache too.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(REPO / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# The tests' time is that of compiling small programs, much of it in LLVM and in making
# LLVM's input: less of both. XLA's own passes all run.
FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if version("jaxlib").startswith("0.10."):  # later ones end at a flag that has gone
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
    # Eight devices share few cores: on a busy machine one may come late to a sum over
    # all, and after 40 seconds XLA would end the process.
    FLAGS.append("--xla_cpu_collective_call_terminate_timeout_seconds=600")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))

import jax
import jaxtyping
import numpy as np
import pytest

import tests.array_types

jax.config.update("jax_num_cpu_devices", 8)
# A silent broadcast of [B] against [B, T] is a bug in a loss, not a convenience.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Must come before the first import of the package. Only modules that declare shapes are
# checked: each call of a checked function costs microseconds, which is nothing where
# JAX traces it once and minutes where Python calls it millions of times.
jaxtyping.install_import_hook(
    tests.array_types.modules_with_shapes(REPO), "tests.array_types.check_arrays"
)


@functools.cache
def of_recipe(file: str) -> bool:
    """Whether tests in the file look at the finished recipe."""
    return "recipe_run import" in (REPO / file).read_text(encoding="utf-8")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The recipe's tests first: they take longest."""
    items.sort(key=lambda item: not of_recipe(item.nodeid.partition("::")[0]))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Tests of a file stay in one process, and so do all that share the recipe."""
    from xdist.scheduler import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "recipe" if of_recipe(file) else file

    return ByFile(config, log)


@pytest.fixture
def rng() -> np.random.Generator:
    """NumPy random numbers, the same in every run."""
    return np.random.default_rng(0)


@pytest.fixture
def key() -> jax.Array:
    """JAX random key, the same in every run."""
    return jax.random.key(0)
