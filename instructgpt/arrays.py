"""Array types with shapes, of which the annotations of numeric modules are made.

`Float[Array, "B T"]` is a floating-point array of two axes; the letters stand for the
same sizes throughout a function's arguments and result, `*rows` for any number of axes,
and `_` for an axis without a name. The tests check them at run time.
"""

from typing import TYPE_CHECKING

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Key, Num, Shaped

__all__ = ["Array", "Bool", "Float", "Int", "Key", "Num", "Shaped"]

if TYPE_CHECKING:
    Array = jax.Array
else:
    Array = jax.Array | np.ndarray  # JAX takes NumPy's arrays too, outside of jit
