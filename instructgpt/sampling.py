"""Prefill once, then decode over the key/value cache.

Letters: B prompts, K samples per prompt, P prompt, R response, V vocabulary, L
layers, H heads, C channels a head. The prompt is one segment shared by its K samples
(one prefill); what has been sampled is a second, [L, B, K, R, H, C], written one
column a step.

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
                f"sampling: temperature={self.temperature} (>= 0), top_p={self.top_p} "
                f"(in (0, 1]) or max_response={self.max_response} (>= 1) is out of range"
            )


class Samples(NamedTuple):
    """Sampled responses, right-padded."""

    tokens: Array  # int32[B, K, R], pad_id after the end
    valid: Array  # bool[B, K, R], True up to and including the stop token
    log_probs: Array  # float32[B, K, R] at the sampling temperature, 0 after the end


class _Loop(NamedTuple):
    index: Array  # int32[], the next response token
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


def draw(logits: Array, keys: Array, *, config: SamplingConfig) -> tuple[Array, Array]:
    """Draws a token from each row of logits.

    Args:
      logits: float32[B, K, V].
      keys: keys [B, K], used as they are.
      config: Temperature and top-p.

    Returns:
      (int32[B, K] tokens, float32[B, K] log-probs). The log-prob is that of the full
      distribution at the sampling temperature (at temperature 1 when greedy); top-p
      narrows what can be drawn, not the distribution that is scored.
    """
    scaled = logits / (config.temperature or 1.0)
    log_p = jax.nn.log_softmax(scaled, axis=-1)
    if config.temperature == 0:
        tokens = jnp.argmax(logits, axis=-1)
    else:
        choice = scaled if config.top_p == 1 else nucleus(scaled, config.top_p)
        noise = jax.vmap(jax.vmap(lambda k: jax.random.gumbel(k, logits.shape[-1:])))
        tokens = jnp.argmax(choice + noise(keys), axis=-1)
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
    batch, num, size = tokens.shape[0], config.num_samples, config.max_response
    row_ids = jnp.arange(batch) if row_ids is None else row_ids
    variables = {"params": params}
    hidden, segment = model.apply(
        variables, tokens[:, None], valid[:, None], keep_kv=True
    )
    shared = as_context(segment)
    length = valid.sum(axis=1, dtype=jnp.int32)

    def key_of(row: Array, k: Array) -> Array:
        return jax.random.fold_in(jax.random.fold_in(key, row), k)

    per_sample = jax.vmap(lambda r: jax.vmap(lambda k: key_of(r, k))(jnp.arange(num)))
    keys = per_sample(row_ids)

    def next_token(hidden: Array, index: Array) -> tuple[Array, Array]:
        logits = model.apply(variables, hidden, method="logits")
        if banned_ids:
            logits = logits.at[..., jnp.array(banned_ids)].set(-jnp.inf)
        at = jax.vmap(jax.vmap(lambda k: jax.random.fold_in(k, index)))(keys)
        return draw(logits, at, config=config)

    def record(loop: _Loop, token: Array, log_prob: Array) -> _Loop:
        token = jnp.where(loop.done, pad_id, token)
        old = loop.samples
        new = token, ~loop.done, jnp.where(loop.done, 0.0, log_prob)
        samples = Samples(
            *(x.at[:, :, loop.index].set(v) for x, v in zip(old, new, strict=True))
        )
        stopped = jnp.isin(token, jnp.array(stop_ids))
        return loop._replace(
            index=loop.index + 1,
            last=token,
            done=loop.done | stopped,
            samples=samples,
        )

    def body(loop: _Loop) -> _Loop:
        offset = jnp.broadcast_to((length + loop.index - 1)[:, None], (batch, num))
        seen = jnp.arange(size) < loop.index - 1
        past = loop.past._replace(valid=jnp.broadcast_to(seen, (batch, num, size)))
        hidden, new = model.apply(
            variables,
            loop.last[:, :, None],
            jnp.ones((batch, num, 1), bool),
            context=(shared, past),
            offset=offset,
            keep_kv=True,
        )
        start = (0, 0, 0, loop.index - 1, 0, 0)
        past = past._replace(
            keys=jax.lax.dynamic_update_slice(past.keys, new.keys, start),
            values=jax.lax.dynamic_update_slice(past.values, new.values, start),
        )
        loop = loop._replace(past=past)
        return record(loop, *next_token(hidden[:, :, 0], loop.index))

    cfg = model.config
    cache = jnp.zeros(
        (cfg.num_layers, batch, num, size, cfg.num_heads, cfg.head_dim),
        cfg.compute_dtype,
    )
    columns = length[:, None, None] + jnp.arange(size)[None, None]
    loop = _Loop(
        index=jnp.zeros((), jnp.int32),
        last=jnp.zeros((batch, num), jnp.int32),
        done=jnp.zeros((batch, num), bool),
        samples=Samples(
            tokens=jnp.full((batch, num, size), pad_id, jnp.int32),
            valid=jnp.zeros((batch, num, size), bool),
            log_probs=jnp.zeros((batch, num, size), jnp.float32),
        ),
        past=Segment(
            keys=cache,
            values=cache,
            positions=jnp.broadcast_to(columns, (batch, num, size)),
            valid=jnp.zeros((batch, num, size), bool),
        ),
    )
    first = jnp.broadcast_to(hidden[:, :, -1], (batch, num, hidden.shape[-1]))
    loop = record(loop, *next_token(first, loop.index))
    loop = jax.lax.while_loop(lambda s: (s.index < size) & ~s.done.all(), body, loop)
    return loop.samples
