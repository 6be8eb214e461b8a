"""Lower bounds of the cost of a pass: floating-point operations and bytes.

Letters: B rows, T tokens, S tokens that a query sees, D width, V vocabulary.
"""

from typing import NamedTuple, Self

import jax.numpy as jnp

from instructgpt.models.config import ModelConfig

PFS_DAY = 1e15 * 86400  # operations of a petaflop/s-day, the unit of the paper's §5.1


class Cost(NamedTuple):
    """Operations of matrix products, and bytes that must be moved for them."""

    flops: float = 0.0  # a multiplication and an addition are two
    bytes: float = 0.0  # weights read once a pass, and the key/value cache

    def plus(self, other: Self) -> Self:
        """The cost of this work followed by the other."""
        return type(self)(self.flops + other.flops, self.bytes + other.bytes)

    def times(self, factor: float) -> Self:
        """The cost of this work done `factor` times."""
        return type(self)(self.flops * factor, self.bytes * factor)

    def seconds(self, *, flops_per_second: float, bytes_per_second: float) -> float:
        """Least time in seconds at these rates: the larger of the two bounds."""
        return max(self.flops / flops_per_second, self.bytes / bytes_per_second)


def layer_weights(config: ModelConfig) -> int:
    """Number of weights in the matrices of all layers."""
    keys_values = 2 * config.width * config.head_dim * config.num_kv_heads
    return config.num_layers * (_reading_weights(config) + keys_values)


def _reading_weights(config: ModelConfig) -> int:
    """Number of a layer's weights, without those that make keys and values."""
    attention = 2 * config.width * config.head_dim * config.num_heads
    mlp = (3 if config.activation == "swiglu" else 2) * config.width * config.mlp_width
    return attention + mlp


def head_weights(config: ModelConfig) -> int:
    """Number of weights of the unembedding."""
    return config.width * config.padded_vocab_size


def forward(
    config: ModelConfig, *, tokens: float, seen: float, predicted: float = 0.0
) -> Cost:
    """The cost of one pass through the layers, and of logits for some of the tokens.

    The causal mask is counted: a query pays only for the keys that it sees.
    Embeddings, norms and activations are left out.

    Args:
      config: The model's config.
      tokens: Total number of queries, B T.
      seen: Keys that a query sees on average, itself included: S. Bands are ignored.
      predicted: Number of tokens whose logits are computed.
    """
    width = jnp.dtype(config.compute_dtype).itemsize
    weights = layer_weights(config)
    heads = config.num_layers * config.num_heads * config.head_dim
    flops = 2 * tokens * weights + 4 * tokens * seen * heads
    moved = weights
    if predicted:
        flops += 2 * predicted * head_weights(config)
        moved += head_weights(config)
    return Cost(flops, moved * width)


def left_out(config: ModelConfig, *, tokens: float, seen: float) -> Cost:
    """The work counted by `forward` that `scan_layers=False` leaves out.

    Args:
      config: The model's config.
      tokens: Number of tokens whose states after the last layer are not read.
      seen: Keys that one of them sees on average.

    Returns:
      A negative cost, to be added to that of `forward`; see `ModelConfig.scan_layers`.
    """
    if config.scan_layers:
        return Cost()
    flops = 2 * tokens * _reading_weights(config)
    return Cost(-flops - 4 * tokens * seen * config.num_heads * config.head_dim)


def prefill(config: ModelConfig, *, rows: int, prompt: int) -> Cost:
    """The cost of reading prompts and computing the first token of each response.

    Args:
      config: The model's config.
      rows: Number of prompts.
      prompt: Tokens of each prompt.
    """
    tokens, seen = rows * prompt, causal(prompt)
    whole = forward(config, tokens=tokens, seen=seen, predicted=rows)
    return whole.plus(left_out(config, tokens=tokens - rows, seen=seen))


def update(config: ModelConfig, cost: Cost) -> Cost:
    """The cost of a gradient and an Adam update, given that of the forward pass.

    The gradient takes twice the forward pass's operations. The float32 parameters and
    both moments are read and written, and the gradient is written and read.
    """
    weights = layer_weights(config) + head_weights(config)
    return Cost(3 * cost.flops, 3 * cost.bytes + 4 * 8 * weights)


def decode(
    config: ModelConfig, *, rows: int, prompt: int, response: int, samples: int = 1
) -> Cost:
    """The cost of all decoding steps: each reads the weights and the cache.

    Args:
      config: The model's config.
      rows: Number of responses sampled at a time.
      prompt: Tokens of a prompt, whose cache `samples` responses share.
      response: Tokens of a response, the first of which comes from the prefill.
      samples: Number of responses to a prompt.
    """
    width = jnp.dtype(config.compute_dtype).itemsize
    kv = 2 * config.num_layers * config.num_kv_heads * config.head_dim * width
    total = Cost()
    for step in range(1, response):
        one = forward(config, tokens=rows, seen=prompt + step, predicted=rows)
        cache = kv * rows * (prompt / samples + step)
        total = total.plus(Cost(one.flops, one.bytes + cache))
    return total


def causal(length: int) -> float:
    """Average number of keys that a query sees in a causal text of this length."""
    return (length + 1) / 2


def decode_weights(config: ModelConfig, *, response: int) -> Cost:
    """The part of `decode` that reads the weights, which no number of rows changes."""
    return decode(config, rows=0, prompt=0, response=response)


def ppo(
    policy: ModelConfig,
    value: ModelConfig,
    *,
    reference: ModelConfig | None = None,
    reward: ModelConfig | None = None,
    episodes: int,
    prompt: int,
    response: int,
    minibatches: int,
    text_rows: int = 0,
    text_length: int = 0,
) -> dict[str, Cost]:
    """The cost of each phase of a PPO iteration, where all texts have full length.

    Args:
      policy: The config of the policy.
      value: The config of the value net.
      reference: The config of the KL reference; None: the policy's.
      reward: The config of the reward model; None: the value net's.
      episodes: Number of prompts, each with one response.
      prompt: Tokens of a prompt.
      response: Tokens of a response.
      minibatches: Number of updates.
      text_rows: Pretraining rows of an update; 0 is plain PPO.
      text_length: Tokens of a pretraining row.
    """
    length, read = prompt + response, episodes * response
    tokens, seen = episodes * length, causal(length)
    unread = dict(tokens=episodes * prompt, seen=causal(prompt))

    def language(config: ModelConfig) -> Cost:
        whole = forward(config, tokens=tokens, seen=seen, predicted=read)
        return whole.plus(left_out(config, **unread))

    def scalar(config: ModelConfig) -> Cost:
        whole = forward(config, tokens=tokens, seen=seen)
        return whole.plus(left_out(config, **unread))

    def updates(config: ModelConfig, whole: Cost) -> Cost:
        return update(config, whole.times(1 / minibatches)).times(minibatches)

    costs = {
        "prefill": prefill(policy, rows=episodes, prompt=prompt),
        "decode": decode(policy, rows=episodes, prompt=prompt, response=response),
        "reference": language(reference or policy),
        "reward": scalar(reward or value),
        "value": scalar(value),
        "policy update": updates(policy, language(policy)),
        "value update": updates(value, scalar(value)),
    }
    if text_rows:
        count = minibatches * text_rows * text_length
        text = forward(policy, tokens=count, seen=causal(text_length), predicted=count)
        costs["ptx gradient"] = text.times(3)
    return costs
