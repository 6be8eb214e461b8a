"""Prefill once, then decode over the key/value cache.

Letters: N prompts, S slots (prompts in the batch at a time), r prompts prefilled
together, K samples per prompt, P prompt, R response, V vocabulary, L layers, G heads of
keys and values, C channels a head. The prompt is one segment shared by its K samples
(one prefill); what has been sampled is a second, a ring of R columns
L x [S, K, G, R, C]. All slots write the same column in a step, whenever each began, so
that a step updates the cache in place; how old a column is tells whose token it holds.

With fewer slots than prompts, a slot whose responses have ended takes the next prompt
while the others go on: the time is that of the tokens, not of the longest response.

Each sample draws its noise from its own key, folded with the row's id, the sample's
number and the token's index: the same prompt, id and key give the same tokens in
whatever batch or slot they sit, but where rounding decides a tie (`gumbel_max`).
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from instructgpt.drawing import draw, token_keys
from instructgpt.errors import UserError
from instructgpt.models.attention import KVSegment
from instructgpt.models.transformer import (
    Transformer,
    as_context,
    decode,
    split_layers,
)
from instructgpt.sharding import constrain, current_ways

Array = jax.Array


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How to draw responses. Defaults sample the model's own distribution."""

    max_response: int  # tokens, EOS included
    temperature: float = 1.0  # 0 is greedy
    top_p: float = 1.0  # nucleus: smallest set of tokens with this probability
    num_samples: int = 1  # K, per prompt
    # S, prompts in the batch at a time, the others waiting for a slot; 0: all.
    slots: int = 0
    refill: int = 0  # r, free slots that are filled together; 0: slots / 8
    # How many widths a prefill may have, P and even fractions of it: it takes the least
    # that its longest prompt fits. Each is compiled.
    prompt_buckets: int = 1

    def __post_init__(self):
        if self.temperature < 0 or not 0 < self.top_p <= 1 or self.max_response < 1:
            raise UserError(
                f"sampling: temperature={self.temperature} (>= 0), "
                f"top_p={self.top_p} "
                f"(in (0, 1]) or max_response={self.max_response} (>= 1) is out of "
                "range"
            )
        if self.slots < 0 or not 0 <= self.refill <= self.slots:
            raise UserError(
                f"sampling: slots={self.slots} (>= 0) or refill={self.refill} (from 0 "
                "to slots) is out of range"
            )
        if self.prompt_buckets < 1:
            raise UserError(
                f"sampling: prompt_buckets={self.prompt_buckets} is out of range; use "
                "1 or more"
            )
        if not self.refill:
            object.__setattr__(self, "refill", -(-self.slots // 8))

    def groups(self, slots: int) -> tuple[int, int]:
        """Groups of so many slots, and how many of each are refilled together.

        A group for each device that rows are cut over, so that no prompt's keys and
        values leave the device that computed them; one if slots do not divide.
        """
        ways = current_ways() if slots % current_ways() == 0 else 1
        return ways, -(-self.refill // ways)


class Samples(NamedTuple):
    """Sampled responses, right-padded."""

    tokens: Array  # int32[N, K, R], pad_id after the end
    valid: Array  # bool[N, K, R], True up to and including the stop token
    log_probs: Array  # float32[N, K, R] at the sampling temperature, 0 after the end


class _Slots(NamedTuple):
    """What sits in each slot, but for its columns of the ring."""

    row: Array  # int32[S], number of the prompt; N in an empty slot
    start: Array  # int32[S], the step before which it came
    prompt: KVSegment  # L x [S, G, P, C]
    last: Array  # int32[S, K], the newest token
    drawn: Array  # int32[S, K], tokens so far
    done: Array  # bool[S, K]

    def reads(self, step: Array) -> Array:
        """int32[S], the number of the response token that this step reads."""
        return step - self.start

    def free(self) -> Array:
        """bool[S], where all samples have ended."""
        return self.done.all(axis=1)


class _Ring(NamedTuple):
    """Of each step's tokens one column: what a step reads, it writes down."""

    keys: tuple[Array, ...]  # L x [S, (K,) G, R, C]; no K if it is 1
    values: tuple[Array, ...]
    tokens: Array  # int32[S, K, R]
    log_probs: Array  # float32[S, K, R]


class _Loop(NamedTuple):
    step: Array  # int32[], decode steps so far
    next_row: Array  # int32[], the first prompt that has had no slot
    slots: _Slots
    ring: _Ring
    samples: Samples  # of the prompts that have left their slots


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
      prompt: (int32[N, P] left-padded, bool[N, P]).
      key: See the module's docstring.
      config: Length, temperature, top-p, K, slots.
      stop_ids: A response ends with the first of these (EOS, say), kept in it.
      pad_id: Fills what follows.
      row_ids: int32[N], each prompt's own number; 0..N-1 if None.
      banned_ids: Never drawn (padding, say).
    """
    if row_ids is None:
        row_ids = jnp.arange(prompt[0].shape[0])
    # Of all tokens at once, not in every step. Whole on every device: else each step
    # asks the others for its rows' numbers.
    keys = token_keys(key, row_ids, config.num_samples, config.max_response)
    keys = constrain(keys, None, None, None)
    layers = split_layers(params)
    sampler = _Sampler(
        model, params, layers, prompt, keys, config, stop_ids, pad_id, banned_ids
    )
    return sampler.run()


@dataclasses.dataclass(frozen=True)
class _Sampler:
    """The arguments of `sample`, and the steps of its loop."""

    model: Transformer
    params: Any
    layers: tuple[Any, ...]
    prompt: tuple[Array, Array]
    keys: Array  # key[N, K, R], of each token
    config: SamplingConfig
    stop_ids: tuple[int, ...]
    pad_id: int
    banned_ids: tuple[int, ...]

    @property
    def refilled(self) -> bool:
        """Whether slots get new prompts."""
        return 0 < self.config.slots < self.num_rows

    @property
    def num_rows(self) -> int:
        return self.prompt[0].shape[0]

    def run(self) -> Samples:
        # 1. the first prompts take the slots
        # 2. decode until enough slots are free, and refill them, until none waits
        # 3. decode until all have ended
        size, count = self.config.slots, self.num_rows
        if not self.refilled:
            loop = self.start(*self.prefill(jnp.arange(count), self.prompt))
            return self.harvest(self.decode(loop), jnp.arange(count))
        # Those alike in length together, long ones first.
        order = jnp.argsort(self.prompt[1].sum(axis=1), descending=True)
        loop = self.start(*self.prefill(order[:size], self.rows(order[:size])))
        loop = jax.lax.while_loop(
            lambda loop: loop.next_row < count,
            lambda loop: self.refill(self.decode(loop), order),
            loop,
        )
        return self.harvest(self.decode(loop), jnp.arange(size))

    def rows(self, row: Array) -> tuple[Array, Array]:
        """Prompts by their numbers."""
        return self.prompt[0][row], self.prompt[1][row]

    def draw(self, hidden: Array, row: Array, index: Array) -> tuple[Array, Array]:
        """Tokens and log-probs [S, K] from hidden states [S, K, D]."""
        logits = self.model.apply({"params": self.params}, hidden, method="logits")
        keys = jax.vmap(lambda row, index: self.keys[row, :, index])(row, index)
        return draw(
            logits,
            keys,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            banned_ids=self.banned_ids,
        )

    def ended(self, token: Array, drawn: Array) -> Array:
        stopped = jnp.isin(token, jnp.array(self.stop_ids))
        return stopped | (drawn == self.config.max_response)

    def prefill(
        self, row: Array, prompt: tuple[Array, Array], step: Array | int = 0
    ) -> tuple[_Slots, Array]:
        """What slots of these prompts hold, and their first tokens' log-probs."""
        hidden, segment = self.read(*prompt)
        shape = row.shape[0], self.config.num_samples
        hidden = jnp.broadcast_to(hidden[:, None], (*shape, hidden.shape[-1]))
        token, log_prob = self.draw(hidden, row, jnp.zeros_like(row))
        drawn = jnp.ones(shape, jnp.int32)
        slots = _Slots(
            row=row,
            start=jnp.full_like(row, step),
            prompt=segment,
            last=token,
            drawn=drawn,
            done=self.ended(token, drawn),
        )
        return slots, log_prob

    def read(self, tokens: Array, valid: Array) -> tuple[Array, KVSegment]:
        """Prompts [r, P] -> their last states [r, D] and keys and values."""
        limit, count = tokens.shape[1], self.config.prompt_buckets
        widths = [-(-limit * (i + 1) // count) for i in range(count)]

        def narrow(width: int, tokens: Array, valid: Array) -> tuple[Array, KVSegment]:
            hidden, segment = self.model.apply(
                {"params": self.params},
                tokens[:, None, limit - width :],
                valid[:, None, limit - width :],
                keep_kv=True,
                read=(width - 1, width),
            )
            segment = as_context(segment)
            before = limit - width, 0

            def split(x: Array) -> tuple[Array, ...]:
                return tuple(pad(layer, 2) for layer in x)

            def pad(x: Array, axis: int) -> Array:
                return jnp.pad(
                    x, [before if i == axis else (0, 0) for i in range(x.ndim)]
                )

            return hidden[:, 0, -1], KVSegment(
                keys=split(segment.keys),
                values=split(segment.values),
                spans=(
                    (
                        limit - valid.sum(axis=1),
                        jnp.full_like(valid[:, 0], limit, jnp.int32),
                    ),
                ),
                positions=pad(segment.positions, 1),
                valid=pad(segment.valid, 1),
            )

        if count == 1:
            return narrow(limit, tokens, valid)
        longest = valid.sum(axis=1).max()
        return jax.lax.switch(
            jnp.searchsorted(jnp.array(widths), longest),
            [functools.partial(narrow, width) for width in widths],
            tokens,
            valid,
        )

    def start(self, slots: _Slots, log_probs: Array) -> _Loop:
        """The loop before its first step."""
        cfg, shape = self.model.config, (*slots.last.shape, self.config.max_response)
        # One sample needs no axis: XLA copies a cache that it reads in another shape
        # than it writes.
        rows = shape[: 1 if shape[1] == 1 else 2]
        layer = *rows, cfg.num_kv_heads, shape[2], cfg.head_dim
        cache = (jnp.zeros(layer, cfg.compute_dtype),) * cfg.num_layers
        ring = _Ring(
            keys=cache,
            values=cache,
            tokens=jnp.zeros(shape, jnp.int32).at[..., 0].set(slots.last),
            log_probs=jnp.zeros(shape, jnp.float32).at[..., 0].set(log_probs),
        )
        shape = (self.num_rows, *shape[1:])
        samples = Samples(
            tokens=jnp.zeros(shape, jnp.int32),
            valid=jnp.zeros(shape, bool),
            log_probs=jnp.zeros(shape, jnp.float32),
        )
        zero, size = jnp.zeros((), jnp.int32), slots.row.shape[0]
        return _Loop(zero, jnp.full((), size, jnp.int32), slots, ring, samples)

    def decode(self, loop: _Loop) -> _Loop:
        """Steps until all have ended, or as many slots are free as can be refilled."""

        def going(loop: _Loop) -> Array:
            waiting = self.num_rows - loop.next_row
            groups, each = self.config.groups(loop.slots.row.shape[0])
            wanted = jnp.minimum(waiting, self.config.refill)
            wanted = -(-wanted // min(groups, 2))  # the last is not worth waiting for
            free = loop.slots.free().reshape(groups, -1).sum(axis=1)
            taken = jnp.minimum(free, each).sum()
            return ~loop.slots.done.all() & ~((waiting > 0) & (taken >= wanted))

        return jax.lax.while_loop(going, self.step, loop)

    def step(self, loop: _Loop) -> _Loop:
        """One token more of every sample."""
        slots, ring, limit = loop.slots, loop.ring, self.config.max_response
        index = slots.reads(loop.step)
        length = slots.prompt.valid.sum(axis=1, dtype=jnp.int32)
        # This step's own column of the ring has age 0.
        age = (loop.step - jnp.arange(limit)) % limit
        held = jnp.minimum(index + 1, limit)[:, None]
        shape = (*slots.last.shape, limit)
        first = (loop.step + 1 - held) % limit
        stop = first + held
        spans: tuple[tuple[Array, Array], ...] = ((first, jnp.minimum(stop, limit)),)
        if self.refilled:  # then the ring has come round
            spans = (*spans, (jnp.zeros_like(first), stop - limit))
        past = KVSegment(
            keys=ring.keys,
            values=ring.values,
            spans=jax.tree.map(lambda x: jnp.broadcast_to(x, slots.last.shape), spans),
            positions=jnp.broadcast_to(
                ((length + index)[:, None] - age[None])[:, None], shape
            ),
            valid=jnp.broadcast_to((age[None] < held)[:, None], shape),
        )
        column, following = loop.step % limit, (loop.step + 1) % limit
        hidden, past = decode(
            self.model,
            self.params,
            self.layers,
            slots.last,
            (slots.prompt, past),
            jnp.broadcast_to((length + index)[:, None], slots.last.shape),
            column,
        )
        row = jnp.minimum(slots.row, self.num_rows - 1)
        token, log_prob = self.draw(hidden, row, index + 1)
        drawn = slots.drawn + ~slots.done

        def record(old: Array, x: Array) -> Array:
            # What has ended stays: its first tokens are next when it waits for long.
            kept = jax.lax.dynamic_slice_in_dim(old, following, 1, axis=2)
            x = jnp.where(slots.done[..., None], kept, x[..., None])
            return jax.lax.dynamic_update_slice_in_dim(old, x, following, axis=2)

        ring = _Ring(
            keys=past.keys,
            values=past.values,
            tokens=record(ring.tokens, token),
            log_probs=record(ring.log_probs, log_prob),
        )
        slots = slots._replace(
            last=token, drawn=drawn, done=slots.done | self.ended(token, drawn)
        )
        return loop._replace(step=loop.step + 1, slots=slots, ring=ring)

    def harvest(self, loop: _Loop, slot: Array) -> Samples:
        """Writes down what these slots, int32[r], hold; S is no slot."""
        slots, limit = loop.slots, self.config.max_response
        columns = (slots.start[slot][:, None] + jnp.arange(limit)[None]) % limit
        tokens, log_probs = (
            jnp.take_along_axis(x[slot], columns[:, None], axis=-1)
            for x in (loop.ring.tokens, loop.ring.log_probs)
        )
        valid = jnp.arange(limit)[None, None] < slots.drawn[slot][..., None]
        new = Samples(
            tokens=jnp.where(valid, tokens, self.pad_id),
            valid=valid,
            log_probs=jnp.where(valid, log_probs, 0.0),
        )
        row = jnp.where(slot < slots.row.shape[0], slots.row[slot], self.num_rows)
        return jax.tree.map(
            lambda old, x: old.at[row].set(x, mode="drop"), loop.samples, new
        )

    def refill(self, loop: _Loop, order: Array) -> _Loop:
        """Gives free slots to the next prompts of int32[N], at most r."""
        groups, each = self.config.groups(loop.slots.row.shape[0])
        free = loop.slots.free().reshape(groups, -1)
        size = free.shape[1]
        found = functools.partial(jnp.nonzero, size=each, fill_value=size)
        (within,) = jax.vmap(found)(free)  # int32[groups, each]
        place = loop.next_row + jnp.cumsum(within < size).reshape(within.shape) - 1
        taken = (within < size) & (place < self.num_rows)
        within = jnp.where(taken, within, size)
        first = jnp.arange(groups)[:, None] * size
        slot = jnp.where(taken, first + within, loop.slots.row.shape[0]).reshape(-1)
        samples = self.harvest(loop, slot)
        row = order[jnp.minimum(place, self.num_rows - 1)].reshape(-1)
        new, log_probs = self.prefill(row, self.rows(row), loop.step)

        def put(old: Array, x: Array) -> Array:
            if groups == 1:
                return old.at[slot].set(x, mode="drop")
            # Choices, which each device makes alone; scatters take long to compile.
            old, x = (a.reshape(groups, -1, *a.shape[1:]) for a in (old, x))
            for k in range(each):
                here = within[:, k, None] == jnp.arange(size)[None]
                here = here.reshape(groups, size, *(1,) * (old.ndim - 2))
                old = jnp.where(here, x[:, k, None], old)
            return old.reshape(-1, *old.shape[2:])

        column = loop.step % self.config.max_response
        tokens, newest = loop.ring.tokens, loop.ring.log_probs
        ring = loop.ring._replace(
            tokens=tokens.at[slot, :, column].set(new.last, mode="drop"),
            log_probs=newest.at[slot, :, column].set(log_probs, mode="drop"),
        )
        return loop._replace(
            next_row=loop.next_row + taken.sum(),
            slots=jax.tree.map(put, loop.slots, new),
            ring=ring,
            samples=samples,
        )
