"""Array arguments carry their shapes, and the tests check them when functions run."""

import ast
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from instructgpt import drawing, losses, rl, rollouts, sampling
from instructgpt.batches import TokenBatch
from instructgpt.models import comparisons
from instructgpt.models.transformer import ScalarModel, Transformer
from instructgpt.sampling import SamplingConfig
from instructgpt.steps.ppo import PPOConfig, with_advantages
from instructgpt.steps.reward import make_reward_loss
from instructgpt.steps.sft import make_sft_loss, weigh_pretraining
from tests import tiny

PACKAGE = Path(__file__).resolve().parents[1] / "instructgpt"
CHECKED = [
    PACKAGE / "batches.py",
    PACKAGE / "drawing.py",
    PACKAGE / "losses.py",
    PACKAGE / "ring.py",
    PACKAGE / "rl.py",
    PACKAGE / "rollouts.py",
    PACKAGE / "sampling.py",
    *sorted((PACKAGE / "steps").glob("*.py")),
    *sorted((PACKAGE / "models").glob("*.py")),
    PACKAGE / "models" / "kernels" / "reference.py",
]
SHAPES = {"Bool", "Float", "Int", "Key", "Num", "Shaped", "Float32", "Int32"}


def shapeless(hint: ast.expr | None) -> bool:
    """Whether a hint is missing, or names an array without a shape."""
    if hint is None:
        return True
    if isinstance(hint, ast.Constant) and isinstance(hint.value, str):
        hint = ast.parse(hint.value, mode="eval").body
    if isinstance(hint, ast.Subscript) and getattr(hint.value, "id", "") in SHAPES:
        return False
    if isinstance(hint, ast.Name) and hint.id == "Array":
        return True
    if isinstance(hint, ast.Subscript) and getattr(hint.value, "id", "") == "Callable":
        return False  # whose arguments are checked where it is defined
    return any(
        shapeless(part)
        for part in ast.iter_child_nodes(hint)
        if isinstance(part, ast.expr)
    )


def bare_arrays(tree: ast.Module) -> Iterator[str]:
    """Arguments, results and fields of public names that lack a shape."""

    def walk(body: list[ast.stmt], prefix: str) -> Iterator[str]:
        for node in body:
            name = f"{prefix}{getattr(node, 'name', '')}"
            if isinstance(node, ast.ClassDef):
                yield from walk(node.body, f"{name}.")
            elif isinstance(node, ast.AnnAssign) and prefix:
                if shapeless(node.annotation):
                    yield f"{prefix}{node.target.id}"
            elif isinstance(node, ast.FunctionDef) and node.name != "setup":
                arguments = node.args
                every = [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]
                for argument in every:
                    own = argument.arg in ("self", "cls")
                    if not own and shapeless(argument.annotation):
                        yield f"{name}({argument.arg})"
                dunder = node.name.startswith("__") and node.name != "__call__"
                if not dunder and shapeless(node.returns):
                    yield f"{name} ->"

    yield from walk(tree.body, "")


@pytest.mark.parametrize(
    "path", CHECKED, ids=lambda p: p.relative_to(PACKAGE).as_posix()
)
def test_every_array_has_a_shape(path):
    assert not list(bare_arrays(ast.parse(path.read_text())))


def test_the_search_finds_what_lacks_a_shape():
    source = (
        "def f(x: Array, y: Float[Array, 'B']) -> tuple[Array, int]: ...\n"
        "def g(z): ...\n"
        "class C:\n    a: Array\n    def h(self, b: 'Array | None') -> None: ...\n"
    )
    found = ["f(x)", "f ->", "g(z)", "g ->", "C.a", "C.h(b)"]
    assert list(bare_arrays(ast.parse(source))) == found


MODEL = Transformer(tiny.config())
SCALAR = ScalarModel(tiny.config())


def odd_call(name: str):
    """Calls one function of a module with arrays whose shapes do not fit."""
    rng, key = np.random.default_rng(0), jax.random.key(0)
    batch, rollout = tiny.token_batch(rng), tiny.rollout(rng)
    match name:
        case "batches":  # as the argument of a step
            odd = batch._replace(loss_mask=batch.loss_mask[:, 1:])
            return make_sft_loss(MODEL)({}, TokenBatch(*odd), key)
        case "losses":
            return losses.masked_sum(jnp.ones((2, 3)), jnp.ones((2,), bool))
        case "rl":
            ones = jnp.ones((2, 3))
            return rl.gae(
                rewards=ones,
                values=jnp.ones((2, 4)),
                mask=ones > 0,
                discount=1.0,
                lam=1.0,
            )
        case "steps.sft":
            return weigh_pretraining(batch._replace(tokens=batch.tokens[:2]), 1, 0.1)
        case "steps.reward":
            comparison = tiny.comparison_batch(rng)
            odd = comparison._replace(ranks=comparison.ranks[:, :2])
            return make_reward_loss(SCALAR)({}, odd, key)
        case "steps.ppo":
            odd = rollout._replace(values=rollout.values[:, :-1])
            return with_advantages(odd, config=PPOConfig())
        case "comparisons":
            response = rollout.response[:2], rollout.response_valid
            prompt = rollout.prompt, rollout.prompt_valid
            return comparisons.response_scores(SCALAR, {}, prompt, response)
        case "sampling":
            prompt = rollout.prompt, rollout.prompt_valid[:, 1:]
            config = SamplingConfig(4)
            return sampling.sample(
                MODEL, {}, prompt, key, config=config, stop_ids=(1,), pad_id=0
            )
        case "drawing":
            return drawing.draw(jnp.ones((2, 1, 5)), jax.random.split(key, (3, 1)))
        case "rollouts":
            odd = rollout._replace(score=rollout.score[None])
            return rollouts.rollout_metrics(odd, kl_coef=0.1)
    raise ValueError(name)


@pytest.mark.parametrize(
    "module",
    [
        "batches",
        "drawing",
        "losses",
        "rl",
        "rollouts",
        "sampling",
        "comparisons",
        "steps.ppo",
        "steps.reward",
        "steps.sft",
    ],
)
def test_a_wrong_shape_is_refused(module):
    with pytest.raises(TypeCheckError):
        odd_call(module)
