"""Training states and their sharded initialisation in one jit."""

import dataclasses
import functools
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax import struct
from jax.sharding import Mesh

from instructgpt.arrays import Params
from instructgpt.errors import UserError
from instructgpt.optim import LossScale
from instructgpt.sharding import tree_shardings


@struct.dataclass
class TrainState:
    """One model in training (pretraining, SFT, RL-init, reward model)."""

    # int32[], number of updates so far, including those skipped under float16. Batches,
    # keys and checkpoints are numbered by it; the optimiser's counts omit skipped ones.
    step: jax.Array
    params: Params  # float32 master copy
    opt_state: optax.OptState
    loss_scale: LossScale | None = None  # None unless the compute dtype is float16

    def updated(self, grads: Params, optimizer: optax.GradientTransformation) -> Self:
        """The state after one optimiser update."""
        updates, opt_state = optimizer.update(grads, self.opt_state, self.params)
        return dataclasses.replace(
            self,
            step=self.step + 1,
            params=optax.apply_updates(self.params, updates),
            opt_state=opt_state,
        )

    def parts(self) -> dict[str, Any]:
        """A checkpoint's parts by name; later stages read only `params`."""
        rest = {"step": self.step, "opt_state": self.opt_state}
        if self.loss_scale is not None:
            rest["loss_scale"] = self.loss_scale
        return {"params": self.params, "optimizer": rest}

    @classmethod
    def from_parts(cls, parts: dict[str, Any]) -> Self:
        """The inverse of `parts`."""
        return cls(params=parts["params"], **parts["optimizer"])

    def scaling(self) -> dict[str, float]:
        """Metrics of the loss scale: its value, and the steps skipped so far."""
        if self.loss_scale is None:
            return {}
        now = jax.device_get(self.loss_scale)
        return {"loss_scale": float(now.scale), "skipped_steps": int(now.skipped)}


@struct.dataclass
class PPOState:
    """Policy and value net, each with its own optimiser, and the policy's EMA."""

    policy: TrainState
    value: TrainState
    ema: Params  # float32 moving average of the policy's parameters

    def parts(self) -> dict[str, Any]:
        """The parts that a checkpoint stores; `params` and `ema` are the policy's."""
        policy, value = self.policy.parts(), self.value.parts()
        return {
            "params": policy["params"],
            "ema": self.ema,
            "optimizer": policy["optimizer"],
            "value": value["params"],
            "value_optimizer": value["optimizer"],
        }

    def scaling(self) -> dict[str, float]:
        """Metrics of the policy's loss scale, and of the value net's as `value_*`."""
        value = {f"value_{k}": x for k, x in self.value.scaling().items()}
        return self.policy.scaling() | value

    @classmethod
    def from_parts(cls, parts: dict[str, Any]) -> Self:
        """The inverse of `parts`."""
        policy = {"params": parts["params"], "optimizer": parts["optimizer"]}
        value = {"params": parts["value"], "optimizer": parts["value_optimizer"]}
        return cls(
            policy=TrainState.from_parts(policy),
            value=TrainState.from_parts(value),
            ema=parts["ema"],
        )


def init_params(model: nn.Module, key: jax.Array) -> Params:
    """The model's parameters, boxed with their logical axis names."""
    tokens = jnp.zeros((1, 1, 1), jnp.int32)
    return model.init(key, tokens, jnp.ones((1, 1, 1), bool))["params"]


@functools.lru_cache(maxsize=64)
def _abstract_params(model: nn.Module) -> Params:
    """The result of `init_params` as ShapeDtypeStructs; a model is traced once."""
    return jax.eval_shape(lambda: init_params(model, jax.random.key(0)))


def params_layout(model: nn.Module, mesh: Mesh) -> Params:
    """ShapeDtypeStructs with shardings of the parameters, to restore into."""
    return _layout(_abstract_params(model), mesh)


def _layout(boxed: Any, mesh: Mesh) -> Any:
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        nn.meta.unbox(boxed),
        tree_shardings(boxed, mesh),
    )


def _start(
    model: nn.Module, optimizer: optax.GradientTransformation, params: Params
) -> TrainState:
    """The state at step 0, with a loss scale if the model computes in float16."""
    half = model.config.compute_dtype == "float16"
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        opt_state=optimizer.init(params),
        loss_scale=LossScale.fresh() if half else None,
    )


def _fresh(
    model: nn.Module, optimizer: optax.GradientTransformation, key: jax.Array
) -> TrainState:
    return _start(model, optimizer, init_params(model, key))


def train_state_layout(
    model: nn.Module, optimizer: optax.GradientTransformation, mesh: Mesh
) -> TrainState:
    """ShapeDtypeStructs with shardings of the result of `make_train_state`."""
    # The key is abstract as well, because the mesh's devices need not be attached.
    boxed = jax.eval_shape(lambda: _fresh(model, optimizer, jax.random.key(0)))
    return _layout(boxed, mesh)


def make_train_state(
    model: nn.Module,
    optimizer: optax.GradientTransformation,
    *,
    key: jax.Array,
    mesh: Mesh,
    params: Params | None = None,
) -> TrainState:
    """Initialises a state on the mesh, each array directly in its own sharding.

    Args:
      model: Its `init` gives the shapes and logical axes.
      optimizer: Its `init` gives the moments.
      key: Random key for the parameters; unused when they are given.
      mesh: The mesh that holds the state.
      params: Initial parameters; None for random ones. They are donated: the state
        takes over their memory, and they cannot be used again.

    Raises:
      UserError: the shapes of `params` are not the model's.
    """
    fresh = functools.partial(_fresh, model, optimizer)
    boxed = jax.eval_shape(fresh, key)
    shardings = tree_shardings(boxed, mesh)
    if params is None:
        return jax.jit(lambda k: nn.meta.unbox(fresh(k)), out_shardings=shardings)(key)
    check_same_shapes(params, nn.meta.unbox(boxed.params))

    def from_params(params: Params) -> TrainState:
        return _start(model, optimizer, params)

    # Memory can be reused only by an array with the same sharding.
    params = jax.device_put(params, shardings.params, donate=True)
    make = jax.jit(from_params, out_shardings=shardings, donate_argnums=0)
    return make(params)


def free(tree: Any) -> None:
    """Frees the memory of live arrays now, even if they are still referenced."""
    for x in jax.tree.leaves(tree):
        x.delete()


def layout_of(state: Any) -> Any:
    """ShapeDtypeStructs with the shardings of a live state, to restore into."""
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state
    )


def scalar_params_from(
    trunk: Params,
    model: nn.Module,
    key: jax.Array,
    mesh: Mesh,
    *,
    head_scale: float = 1.0,
) -> Params:
    """Parameters of a ScalarModel from a given trunk and a new random head.

    The language model's unembedding is left out (a tied one is the embedding and
    stays). The head starts with std head_scale/sqrt(D + 1) and bias 0.
    """
    trunk = {name: value for name, value in trunk.items() if name != "unembedding"}
    layout = params_layout(model, mesh)
    head = jax.jit(
        lambda k: {
            name: value
            for name, value in nn.meta.unbox(init_params(model, k)).items()
            if name != "trunk"
        },
        out_shardings=jax.tree.map(
            lambda x: x.sharding, {k: v for k, v in layout.items() if k != "trunk"}
        ),
    )(key)
    return {"trunk": trunk, **head, "kernel": head["kernel"] * head_scale}


def check_same_shapes(params: Params, expected: Params) -> None:
    """Raises UserError, naming the first array that is missing, extra or misshapen."""
    have = {jax.tree_util.keystr(k): v for k, v in _flat(params)}
    want = {jax.tree_util.keystr(k): v for k, v in _flat(expected)}
    for name in sorted(want.keys() | have.keys()):
        if name not in have or name not in want:
            what = "lacks" if name not in have else "has an unexpected"
            raise UserError(f"the checkpoint {what} {name}; is it of another model?")
        if have[name].shape != want[name].shape:
            raise UserError(
                f"the checkpoint's {name} has shape {have[name].shape}, config.model "
                f"wants {want[name].shape}; make config.model match the checkpoint"
            )


def _flat(tree: Any):
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def shardings_of(tree: Any) -> Any:
    """The shardings of live arrays, to which a step's output is pinned."""
    return jax.tree.map(lambda x: x.sharding, tree)


def cast(params: Params, dtype: str) -> Params:
    """A copy of the parameters in a compute dtype, for inference.

    LayerNorms and scalar heads compute in float32 and are not cast, so that the copy
    gives the same numbers as the float32 parameters give in training.
    """

    def one(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        *parents, name = (str(entry.key) for entry in path)
        head = not parents and name in ("kernel", "bias")
        norm = bool(parents) and parents[-1].startswith("ln_")
        return jnp.array(x, jnp.float32 if head or norm else dtype)

    return jax.tree_util.tree_map_with_path(one, params)
