"""Sampling: prefills each prompt once, then decodes over the key/value cache.

Letters: N prompts, S slots (prompts in the batch at a time), r prompts prefilled
together, K samples per prompt, P prompt, R response, L layers, G heads of keys and
values, C channels a head, D width. The prompt is one segment shared by its K samples
(one prefill); the sampled tokens are a second, a ring of R columns, see ring.py.

With fewer slots than prompts, a slot whose responses have ended takes the next prompt
while the others continue (continuous batching): nothing waits for the longest response.

Each sample draws its noise from its own key, folded with the row's id, the sample's
number and the token's index: the same prompt, id and key give the same tokens in any
batch and slot, unless rounding decides a tie (see `gumbel_max`).
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from instructgpt.arrays import Array, Bool, Float, Int, Key, Params
from instructgpt.drawing import draw, token_keys
from instructgpt.errors import UserError
from instructgpt.models.structures import KVSegment
from instructgpt.models.transformer import Transformer, as_context, split_layers
from instructgpt.ranges import (
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFraction,
    PositiveInt,
    check_values,
)
from instructgpt.ring import Ring
from instructgpt.sharding import constrain, current_ways


@dataclasses.dataclass(frozen=True)
class SamplingConfig:
    """How responses are drawn; defaults sample the model's own distribution."""

    max_response: PositiveInt  # R, most tokens of a response, EOS included
    temperature: NonNegativeFloat = 1.0  # 0 is greedy
    # Nucleus: draws from the smallest set of tokens with at least this probability.
    top_p: PositiveFraction = 1.0
    num_samples: PositiveInt = 1  # K, samples per prompt
    # S, the number of prompts in the batch at a time; others wait for a slot. 0: all.
    slots: NonNegativeInt = 0
    refill: NonNegativeInt = 0  # r, free slots that are filled together; 0: slots / 8
    # Number of widths of a prefill: P and its even fractions. A prefill takes the least
    # width that fits its longest prompt; each width is compiled.
    prompt_buckets: PositiveInt = 1

    def __post_init__(self):
        check_values(type(self), vars(self), where="sampling")
        if self.refill > self.slots:
            raise UserError(
                f"sampling.refill={self.refill}: give from 0 to slots={self.slots}"
            )
        if not self.refill:
            object.__setattr__(self, "refill", -(-self.slots // 8))

    def groups(self, slots: int) -> tuple[int, int]:
        """Number of groups of slots, and of slots refilled together in each group.

        A group's rows are on the same devices, so that no keys and values leave them.
        All slots form one group if they do not divide over the devices.
        """
        ways = current_ways() if slots % current_ways() == 0 else 1
        return ways, -(-self.refill // ways)


class Samples(NamedTuple):
    """Sampled responses, right-padded."""

    tokens: Int[Array, "N K R"]  # pad_id after the end of a response
    valid: Bool[Array, "N K R"]  # True up to and including the stop token
    log_probs: Float[Array, "N K R"]  # at the sampling temperature, 0 after the end


class _Slots(NamedTuple):
    """The state of each slot, without its columns of the ring."""

    row: Int[Array, " S"]  # number of the slot's prompt, from 0 to N - 1
    start: Int[Array, " S"]  # number of steps done when the prompt took the slot
    prompt: KVSegment  # L x [S, G, P, C]
    length: Int[Array, " S"]  # real tokens of the prompt
    last: Int[Array, "S K"]  # newest token of each sample
    drawn: Int[Array, "S K"]  # number of tokens drawn so far
    done: Bool[Array, "S K"]  # whether a sample has ended

    def response_index(self, step: Int[Array, ""]) -> Int[Array, " S"]:
        """Index of the response token that this step reads, from 0."""
        return step - self.start

    def free(self) -> Bool[Array, " S"]:
        """True for slots in which all samples have ended."""
        return self.done.all(axis=1)


class _Loop(NamedTuple):
    step: Int[Array, ""]  # decode steps so far
    next_row: Int[Array, ""]  # place, in the order, of the first waiting prompt
    slots: _Slots
    ring: Ring
    samples: Samples  # of the prompts that have left their slots


def sample(
    model: Transformer,
    params: Params,
    prompt: tuple[Int[Array, "N P"], Bool[Array, "N P"]],
    key: Key[Array, ""],
    *,
    config: SamplingConfig,
    stop_ids: tuple[int, ...],
    pad_id: int,
    row_ids: Int[Array, " N"] | None = None,
    banned_ids: tuple[int, ...] = (),
) -> Samples:
    """Samples K responses to each prompt. Pure; jit it with the keywords static.

    Args:
      model: The policy.
      params: The policy's parameters.
      prompt: Token ids and a mask of the real ones, left-padded.
      key: Key of all noise, see the module's docstring.
      config: Length, temperature, top-p, K, slots.
      stop_ids: Tokens that end a response and are kept in it, such as EOS.
      pad_id: Token after the end of a response.
      row_ids: Id of each prompt, which keys its noise; 0..N-1 if None.
      banned_ids: Tokens that are never drawn, such as padding.
    """
    if row_ids is None:
        row_ids = jnp.arange(prompt[0].shape[0])
    # Computed once and replicated, so that no step fetches keys from other devices.
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
    params: Params
    layers: tuple[Any, ...]
    prompt: tuple[Int[Array, "N P"], Bool[Array, "N P"]]
    keys: Key[Array, "N K R"]  # key of each token
    config: SamplingConfig
    stop_ids: tuple[int, ...]
    pad_id: int
    banned_ids: tuple[int, ...]

    @property
    def refilled(self) -> bool:
        """Whether there are fewer slots than prompts, so that slots are refilled."""
        return 0 < self.config.slots < self.num_rows

    @property
    def num_rows(self) -> int:
        return self.prompt[0].shape[0]

    def run(self) -> Samples:
        # 1. the first prompts take the slots
        # 2. decode until enough slots are free, and refill them, until no prompt waits
        # 3. decode until all responses have ended
        size, count = self.config.slots, self.num_rows
        if not self.refilled:
            loop = self.first_loop(*self.prefill(jnp.arange(count), self.prompt))
            return self.harvest(self.decode(loop), jnp.arange(count))
        order = jnp.argsort(self.prompt[1].sum(axis=1), descending=True)  # long first
        loop = self.first_loop(*self.prefill(order[:size], self.rows(order[:size])))
        loop = jax.lax.while_loop(
            lambda loop: loop.next_row < count,
            lambda loop: self.refill(self.decode(loop), order),
            loop,
        )
        return self.harvest(self.decode(loop), jnp.arange(size))

    def rows(
        self, row: Int[Array, " r"]
    ) -> tuple[Int[Array, "r P"], Bool[Array, "r P"]]:
        return self.prompt[0][row], self.prompt[1][row]

    def draw(
        self,
        hidden: Float[Array, "S K D"],
        *,
        row: Int[Array, " S"],
        index: Int[Array, " S"],
    ) -> tuple[Int[Array, "S K"], Float[Array, "S K"]]:
        """Draws response token `index` of each row; returns tokens and log-probs."""
        logits = self.model.apply({"params": self.params}, hidden, method="logits")
        keys = jax.vmap(lambda row, index: self.keys[row, :, index])(row, index)
        return draw(
            logits,
            keys,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            banned_ids=self.banned_ids,
        )

    def ended(
        self, *, token: Int[Array, "S K"], drawn: Int[Array, "S K"]
    ) -> Bool[Array, "S K"]:
        """Whether each response ends with this token, after `drawn` tokens."""
        stopped = jnp.isin(token, jnp.array(self.stop_ids))
        return stopped | (drawn == self.config.max_response)

    def prefill(
        self,
        row: Int[Array, " r"],
        prompt: tuple[Int[Array, "r P"], Bool[Array, "r P"]],
        step: Int[Array, ""] | int = 0,
    ) -> tuple[_Slots, Float[Array, "r K"]]:
        """New slots for these prompts, and the log-probs of their first tokens."""
        hidden, segment = self.read_prompts(*prompt)
        shape = row.shape[0], self.config.num_samples
        hidden = jnp.broadcast_to(hidden[:, None], (*shape, hidden.shape[-1]))
        token, log_prob = self.draw(hidden, row=row, index=jnp.zeros_like(row))
        drawn = jnp.ones(shape, jnp.int32)
        slots = _Slots(
            row=row,
            start=jnp.full_like(row, step),
            prompt=segment,
            length=prompt[1].sum(axis=1, dtype=jnp.int32),
            last=token,
            drawn=drawn,
            done=self.ended(token=token, drawn=drawn),
        )
        return slots, log_prob

    def read_prompts(
        self, tokens: Int[Array, "r P"], valid: Bool[Array, "r P"]
    ) -> tuple[Float[Array, "r D"], KVSegment]:
        """The states at the prompts' last tokens, and the prompts' keys and values."""
        limit, count = tokens.shape[1], self.config.prompt_buckets
        widths = [-(-limit * (i + 1) // count) for i in range(count)]

        def narrow(width: int, tokens: Array, valid: Array) -> tuple[Array, KVSegment]:
            hidden, segment = self.model.apply(
                {"params": self.params},
                tokens[:, None, limit - width :],
                valid[:, None, limit - width :],
                keep_kv=True,
                output_range=(width - 1, width),
            )
            segment = as_context(segment)

            def padded(x: Array, axis: int) -> Array:
                before = [(limit - width if i == axis else 0, 0) for i in range(x.ndim)]
                return jnp.pad(x, before)

            keys, values = (
                tuple(padded(layer, 2) for layer in layers)
                for layers in (segment.keys, segment.values)
            )
            first = limit - valid.sum(axis=1, dtype=jnp.int32)
            return hidden[:, 0, -1], KVSegment(
                keys,
                values,
                padded(segment.positions, 1),
                valid,
                spans=((first, jnp.full_like(first, limit)),),
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

    def first_loop(self, slots: _Slots, log_probs: Float[Array, "S K"]) -> _Loop:
        """The state of the loop before its first step."""
        limit = self.config.max_response
        ring = Ring.create(self.model.config, limit, slots.last, log_probs)
        shape = self.num_rows, slots.last.shape[1], limit
        empty = jnp.zeros(shape, jnp.int32)
        samples = Samples(empty, empty.astype(bool), empty.astype(jnp.float32))
        zero, size = jnp.zeros((), jnp.int32), slots.row.shape[0]
        return _Loop(zero, jnp.full((), size, jnp.int32), slots, ring, samples)

    def decode(self, loop: _Loop) -> _Loop:
        """Runs steps until all samples have ended, or enough slots can be refilled."""

        def going(loop: _Loop) -> Array:
            free = loop.slots.free()
            return ~free.all() & ~self.refillable(loop.next_row, free)

        return jax.lax.while_loop(going, self.step, loop)

    def refillable(
        self, next_row: Int[Array, ""], free: Bool[Array, " S"]
    ) -> Bool[Array, ""]:
        """Whether prompts wait, and enough slots are free to prefill them together."""
        groups, each = self.config.groups(free.shape[0])
        waiting = self.num_rows - next_row
        wanted = jnp.minimum(waiting, self.config.refill)
        wanted = -(-wanted // min(groups, 2))  # half: a group may have no free slot yet
        in_group = free.reshape(groups, -1).sum(axis=1)
        return (waiting > 0) & (jnp.minimum(in_group, each).sum() >= wanted)

    def step(self, loop: _Loop) -> _Loop:
        """Decodes one more token of every sample."""
        slots, ring = loop.slots, loop.ring
        index = slots.response_index(loop.step)
        past = ring.segment(
            loop.step,
            reads=index,
            prompt_length=slots.length,
            wraps=self.refilled,
        )
        positions = (slots.length + index)[:, None]
        hidden, past = self.model.apply(
            {"params": self.params},
            slots.last,
            jnp.broadcast_to(positions, slots.last.shape),
            layers=self.layers,
            context=(slots.prompt, past),
            cache_column=ring.column(loop.step),
            method="decode",
        )
        token, log_prob = self.draw(hidden, row=slots.row, index=index + 1)
        drawn = slots.drawn + ~slots.done

        ring = ring.record(
            loop.step,
            cache=past,
            token=token,
            log_prob=log_prob,
            done=slots.done,
        )
        slots = slots._replace(
            last=token,
            drawn=drawn,
            done=slots.done | self.ended(token=token, drawn=drawn),
        )
        return loop._replace(step=loop.step + 1, slots=slots, ring=ring)

    def harvest(self, loop: _Loop, slot: Int[Array, " r"]) -> Samples:
        """Copies the responses of these slots to the samples; number S is no slot."""
        slots, limit = loop.slots, self.config.max_response
        tokens, log_probs = loop.ring.responses(slot, slots.start[slot])
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

    def refill(self, loop: _Loop, order: Int[Array, " N"]) -> _Loop:
        """Gives the next prompts free slots, at most ceil(r / groups) of each group."""
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
            # Written as `where` within a group, which needs no other device.
            old, x = (a.reshape(groups, -1, *a.shape[1:]) for a in (old, x))
            for k in range(each):
                here = within[:, k, None] == jnp.arange(size)[None]
                here = here.reshape(groups, size, *(1,) * (old.ndim - 2))
                old = jnp.where(here, x[:, k, None], old)
            return old.reshape(-1, *old.shape[2:])

        ring = loop.ring.begin(loop.step, slot, token=new.last, log_prob=log_probs)
        return loop._replace(
            next_row=loop.next_row + taken.sum(),
            slots=jax.tree.map(put, loop.slots, new),
            ring=ring,
            samples=samples,
        )
