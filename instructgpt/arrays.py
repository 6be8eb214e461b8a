"""Array types with shapes, for the annotations of numeric modules.

`Float[Array, "B T"]` is a floating-point array with two axes. A letter stands for the
same size in all of a function's arguments and its result, `*rows` for any number of
axes, and `_` for an axis without a name. The tests check the shapes at run time.
"""

from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Key, Num, Shaped

__all__ = ["Array", "Bool", "Float", "Int", "Key", "Num", "Params", "Shaped"]

if TYPE_CHECKING:
    Array = jax.Array
else:
    Array = jax.Array | np.ndarray  # outside of jit JAX also accepts NumPy arrays

Params = Any  # a model's parameters: a tree of dicts whose leaves are arrays
