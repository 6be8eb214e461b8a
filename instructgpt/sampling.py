"""Prefill once, then decode over the key/value cache.

Letters: B prompts, K samples per prompt, P prompt, R response, V vocabulary, L
layers, G heads of keys and values, C channels a head. The prompt is one segment shared
by its K samples (one prefill); what has been sampled is a second, [L, B, K, R, G, C],
written one column a step.

Each sample draws its noise from its own key, folded with the row's id, the sample's
number and the token's index: the same prompt, id and key give the same tokens in
whatever batch they sit.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from instructgpt.errors import UserError
from instructgpt.models.layers import Segment
from instructgpt.models.transformer import Transformer, as_context

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How to draw responses. Defaults sample the model's own distribution."""

    max_response: int  # tokens, EOS included
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0  # nucleus: smallest set of tokens with this probability
    num_samples: int = 1  # K, per prompt

    def __post_init__(self):
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_response < 1:
            raise UserError(
                f"sampling: temperature={self.temperature} (>= 0), "
                f"top_p={self.top_p} "
                f"(in (0, 1]) or max_response={self.max_response} (>= 1) is out of "
                "range"
            )


class Samples(NamedTuple):
    """Sampled responses, right-padded."""

    tokens: Array  # int32[B, K, R], pad_id after the end
    valid: Array  # bool[B, K, R], True up to and including the stop token
    log_probs: Array  # float32[B, K, R] at the sampling temperature, 0 after the end


class _Loop(NamedTuple):
    step: Array  # int32[], the next response token's number
    last: Array  # int32[B, K], the token before it
    done: Array  # bool[B, K]
    samples: Samples
    past: Segment  # keys of the tokens sampled so far


def nucleus(logits: Array, top_p: float) -> Array:
    """Sets logits outside the smallest set with probability >= top_p to -inf."""
    ordered = jnp.sort(logits, axis=-1)[..., ::-1]
    probs = jax.nn.softmax(ordered, axis=-1)
    before = jnp.cumsum(probs, axis=-1) - probs
    kept = jnp.where(before < top_p, ordered, jnp.inf)
    return jnp.where(logits >= kept.min(axis=-1, keepdims=True), logits, -jnp.inf)


def draw(
    logits: Array,
    keys: Array,
    *,
    config: SamplingConfig,
    banned_ids: tuple[int, ...] = (),
) -> tuple[Array, Array]:
    """Draws a token from each row of logits.

    Args:
      logits: float32[B, K, V].
      keys: keys [B, K], used as they are.
      config: Temperature and top-p.
      banned_ids: Never drawn.

    Returns:
      (int32[B, K] tokens, float32[B, K] log-probs). The log-prob is that of the full
      distribution at the sampling temperature (at temperature 1 when greedy), as a
      scoring pass computes it; top-p and banned ids narrow what can be drawn, not
      the distribution that is scored.
    """
    choice = scaled = logits / (config.temperature or 1.0)
    log_p = jax.nn.log_softmax(scaled, axis=-1)
    if banned_ids:
        choice = choice.at[..., jnp.array(banned_ids)].set(-jnp.inf)
    if config.temperature > 0:
        if config.top_p < 1:
            choice = nucleus(choice, config.top_p)
        noise = jax.vmap(jax.vmap(lambda k: jax.random.gumbel(k, logits.shape[-1:])))
        choice = choice + noise(keys)
    tokens = jnp.argmax(choice, axis=-1)
    taken = jnp.take_along_axis(log_p, tokens[..., None], axis=-1)[..., 0]
    return tokens.astype(jnp.int32), taken


def sample(
    model: Transformer,
    params: Any,
    prompt: tuple[Array, Array],
    key: Array,
    *,
    config: SamplingConfig,
    stop_ids: tuple[int, ...],
    pad_id: int,
    row_ids: Array | None = None,
    banned_ids: tuple[int, ...] = (),
) -> Samples:
    """Samples K responses to each prompt. Pure; jit it with the keywords static.

    Args:
      model: The policy.
      params: Its parameters.
      prompt: (int32[B, P] left-padded, bool[B, P]).
      key: See the module's docstring.
      config: Length, temperature, top-p, K.
      stop_ids: A response ends with the first of these (EOS, say), kept in it.
      pad_id: Fills what follows.
      row_ids: int32[B], each prompt's own number; 0..B-1 if None.
      banned_ids: Never drawn (padding, say).
    """
    tokens, valid = prompt
    batch, num = tokens.shape[0], config.num_samples
    variables = {"params": params}
    hidden, segment = model.apply(
        variables, tokens[:, None], valid[:, None], keep_kv=True
    )
    shared, length = as_context(segment), valid.sum(axis=1, dtype=jnp.int32)
    row_ids = jnp.arange(batch) if row_ids is None else row_ids
    keys = _keys(key, row_ids, num)

    def next_token(hidden: Array, step: Array) -> tuple[Array, Array]:
        logits = model.apply(variables, hidden, method="logits")
        at = jax.vmap(jax.vmap(lambda k: jax.random.fold_in(k, step)))(keys)
        return draw(logits, at, config=config, banned_ids=banned_ids)

    def body(loop: _Loop) -> _Loop:
        past = _seen(loop.past, loop.step - 1)
        hidden, new = model.apply(
            variables,
            loop.last[:, :, None],
            jnp.ones((batch, num, 1), bool),
            context=(shared, past),
            offset=jnp.broadcast_to((length + loop.step - 1)[:, None], (batch, num)),
            keep_kv=True,
        )
        loop = loop._replace(past=_write(past, new, loop.step - 1))
        token, log_prob = next_token(hidden[:, :, 0], loop.step)
        return _record(loop, token, log_prob, stop_ids=stop_ids, pad_id=pad_id)

    loop = _start(model, length, config=config, pad_id=pad_id)
    first = jnp.broadcast_to(hidden[:, :, -1], (batch, num, hidden.shape[-1]))
    token, log_prob = next_token(first, loop.step)
    loop = _record(loop, token, log_prob, stop_ids=stop_ids, pad_id=pad_id)
    loop = jax.lax.while_loop(
        lambda s: (s.step < config.max_response) & ~s.done.all(), body, loop
    )
    return loop.samples


def _keys(key: Array, row_ids: Array, num: int) -> Array:
    """A key for every sample [B, K], from the row's id and the sample's number."""

    def one(row: Array, k: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(key, row), k)

    return jax.vmap(lambda r: jax.vmap(lambda k: one(r, k))(jnp.arange(num)))(row_ids)


def _start(
    model: Transformer, length: Array, *, config: SamplingConfig, pad_id: int
) -> _Loop:
    """Nothing sampled yet; `length` int32[B] is each prompt's."""
    cfg = model.config
    shape = (length.shape[0], config.num_samples, config.max_response)
    cache = jnp.zeros(
        (cfg.num_layers, *shape, cfg.num_kv_heads, cfg.head_dim), cfg.compute_dtype
    )
    columns = length[:, None, None] + jnp.arange(config.max_response)[None, None]
    none = jnp.zeros(shape, bool)
    return _Loop(
        step=jnp.zeros((), jnp.int32),
        last=jnp.zeros(shape[:2], jnp.int32),
        done=jnp.zeros(shape[:2], bool),
        samples=Samples(
            tokens=jnp.full(shape, pad_id, jnp.int32),
            valid=none,
            log_probs=jnp.zeros(shape, jnp.float32),
        ),
        past=Segment(
            keys=cache,
            values=cache,
            positions=jnp.broadcast_to(columns, shape),
            valid=none,
        ),
    )


def _seen(past: Segment, count: Array) -> Segment:
    """Marks the first `count` columns of the cache as there to be attended to."""
    seen = jnp.arange(past.valid.shape[-1]) < count
    return past._replace(valid=jnp.broadcast_to(seen, past.valid.shape))


def _write(past: Segment, new: Segment, column: Array) -> Segment:
    """Puts one token's keys and values into a column of the cache."""
    start = (0, 0, 0, column, 0, 0)
    return past._replace(
        keys=jax.lax.dynamic_update_slice(past.keys, new.keys, start),
        values=jax.lax.dynamic_update_slice(past.values, new.values, start),
    )


def _record(
    loop: _Loop,
    token: Array,
    log_prob: Array,
    *,
    stop_ids: tuple[int, ...],
    pad_id: int,
) -> _Loop:
    """Appends a token to every row that has not ended."""
    token = jnp.where(loop.done, pad_id, token)
    new = token, ~loop.done, jnp.where(loop.done, 0.0, log_prob)
    samples = Samples(
        *(x.at[:, :, loop.step].set(v) for x, v in zip(loop.samples, new, strict=True))
    )
    stopped = jnp.isin(token, jnp.array(stop_ids))
    return loop._replace(
        step=loop.step + 1, last=token, done=loop.done | stopped, samples=samples
    )
