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

from instructgpt.errors import UserError
from instructgpt.optim import LossScale
from instructgpt.sharding import tree_shardings

Params = Any


@struct.dataclass
class TrainState:
    """One model in training (pretraining, SFT, RL-init, reward model)."""

    # int32[], updates so far, those that float16 had skipped among them: batches, keys
    # and checkpoints go by it. The optimiser's own counts leave them out.
    step: jax.Array
    params: Params  # float32 master copy
    opt_state: optax.OptState
    loss_scale: LossScale | None = None  # of float16 alone

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
        """What a checkpoint stores, by name: later stages read `params` alone."""
        rest = {"step": self.step, "opt_state": self.opt_state}
        if self.loss_scale is not None:
            rest["loss_scale"] = self.loss_scale
        return {"params": self.params, "optimizer": rest}

    @classmethod
    def from_parts(cls, parts: dict[str, Any]) -> Self:
        """The inverse of `parts`."""
        return cls(params=parts["params"], **parts["optimizer"])

    def scaling(self) -> dict[str, float]:
        """What is logged of the loss scale: itself, and steps skipped so far."""
        if self.loss_scale is None:
            return {}
        now = jax.device_get(self.loss_scale)
        return {"loss_scale": float(now.scale), "skipped_steps": int(now.skipped)}


@struct.dataclass
class PPOState:
    """Policy and value net, each with its own optimiser, and the policy's EMA."""

    policy: TrainState
    value: TrainState
    ema: Params  # float32, of the policy's parameters

    def parts(self) -> dict[str, Any]:
        """What a checkpoint stores: `params` and `ema` are the policy's."""
        policy, value = self.policy.parts(), self.value.parts()
        return {
            "params": policy["params"],
            "ema": self.ema,
            "optimizer": policy["optimizer"],
            "value": value["params"],
            "value_optimizer": value["optimizer"],
        }

    def scaling(self) -> dict[str, float]:
        """Those of the policy, and of the value net under names of their own."""
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


def params_layout(model: nn.Module, mesh: Mesh) -> Params:
    """ShapeDtypeStructs with shardings of the parameters: what to restore into."""
    boxed = jax.eval_shape(lambda: init_params(model, jax.random.key(0)))
    return _layout(boxed, mesh)


def _layout(boxed: Any, mesh: Mesh) -> Any:
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        nn.meta.unbox(boxed),
        tree_shardings(boxed, mesh),
    )


def _start(
    model: nn.Module, optimizer: optax.GradientTransformation, params: Params
) -> TrainState:
    """Step 0, with a loss scale if the model computes in float16."""
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
    """ShapeDtypeStructs with shardings of what `make_train_state` makes."""
    # The key is abstract as well: the mesh's devices need not be there.
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
    """Initialises a state on the mesh, each array born where it lives.

    Args:
      model: Its `init` gives the shapes and logical axes.
      optimizer: Its `init` gives the moments.
      key: For the parameters; unused when they are given.
      mesh: Where the state lives.
      params: Start from these instead of fresh ones. They are donated: the state takes
        their memory over, so that nothing is held twice, and they cannot be used again.

    Raises:
      UserError: `params` do not have the model's shapes.
    """
    fresh = functools.partial(_fresh, model, optimizer)
    boxed = jax.eval_shape(fresh, key)
    shardings = tree_shardings(boxed, mesh)
    if params is None:
        return jax.jit(lambda k: nn.meta.unbox(fresh(k)), out_shardings=shardings)(key)
    check_same_shapes(params, nn.meta.unbox(boxed.params))

    def from_params(params: Params) -> TrainState:
        return _start(model, optimizer, params)

    # Memory can be taken over only by an array that is cut over devices as before.
    params = jax.device_put(params, shardings.params, donate=True)
    make = jax.jit(from_params, out_shardings=shardings, donate_argnums=0)
    return make(params)


def free(tree: Any) -> None:
    """Frees the memory of live arrays now, whoever still refers to them."""
    for x in jax.tree.leaves(tree):
        x.delete()


def layout_of(state: Any) -> Any:
    """ShapeDtypeStructs with shardings of a live state, to restore into."""
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
    """A ScalarModel's parameters: this trunk and a fresh head.

    The language model's unembedding is left out (tied, it is the embedding, which
    stays); the head starts at std head_scale/sqrt(D + 1) and bias 0.
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
    """Raises UserError naming the first array that is missing, extra or misshapen."""
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
    """The shardings of live arrays, to pin a step's output to."""
    return jax.tree.map(lambda x: x.sharding, tree)


def cast(params: Params, dtype: str) -> Params:
    """A copy of the parameters in a compute dtype, for models that only run.

    LayerNorms and scalar heads compute in float32 and stay in it, so that the copy
    gives the same numbers as the float32 parameters do in training.
    """

    def one(path: tuple[Any, ...], x: jax.Array) -> jax.Array:
        *parents, name = (str(entry.key) for entry in path)
        head = not parents and name in ("kernel", "bias")
        norm = bool(parents) and parents[-1].startswith("ln_")
        return jnp.array(x, jnp.float32 if head or norm else dtype)

    return jax.tree_util.tree_map_with_path(one, params)
