"""Public model families as tables: names of config keys and of tensors, and shapes.

All families share one model: a family's config sets the switches of `ModelConfig`, and
its rules say how each of its tensors becomes one of our arrays. Patterns are those of
einops, applied from left to right on import and from right to left on export.

Letters: v vocabulary, d width, h heads, g heads of keys and values, c channels a head,
f feed-forward, t context, n number of our arrays that one tensor joins.
"""

import dataclasses
import typing
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from instructgpt.errors import UserError, about
from instructgpt.models.config import ModelConfig
from instructgpt.models.hf.rotary_keys import read_rotary, write_rotary
from instructgpt.models.hf.values import positive, truth
from instructgpt.models.hf.values import whole as whole_number
from instructgpt.reading import describe

_ATTENTION, _MLP = "layers/attention", "layers/mlp"


class Rule(NamedTuple):
    """How one public tensor, or one tensor of every layer, maps to our arrays."""

    theirs: str  # name of the public tensor; {} is the layer's number
    ours: tuple[str, ...]  # paths of our arrays, several if the tensor joins them
    pattern: str  # public axes -> our axes, without our leading layer axis

    @property
    def per_layer(self) -> bool:
        """Whether each layer has this tensor."""
        return "{}" in self.theirs


@dataclasses.dataclass(frozen=True)
class Family:
    """The contents of one architecture's files."""

    name: str  # `model_type` in config.json
    model: str  # class of the language model, in `architectures`
    classifier: str  # class of the reward model
    trunk: str  # prefix of the names of the trunk's tensors
    keys: Mapping[str, str]  # field of ModelConfig -> key of config.json
    defaults: Mapping[str, Any]  # values of keys that a config.json may leave out
    switches: Mapping[str, Any]  # fields of ModelConfig that the family fixes
    activations: Mapping[str, str]  # public name -> ours; export writes the first match
    activation_key: str
    needed: Mapping[str, Any]  # the only value supported for a key that is given
    rules: tuple[Rule, ...]
    head: str  # name of the untied unembedding
    # Suffixes of tensors that hold no parameters (masks, tables of angles).
    buffers: tuple[str, ...] = ()
    partial_rotary: bool = False  # whether a share of a head's channels may be rotated

    @property
    def embedding(self) -> str:
        """Name of the embedding, without the trunk's prefix."""
        return self.rules[0].theirs


def _norm(theirs: str, ours: str, *, bias: bool = True) -> tuple[Rule, ...]:
    scale = Rule(f"{theirs}.weight", (f"{ours}/scale",), "d -> d")
    return (scale, Rule(f"{theirs}.bias", (f"{ours}/bias",), "d -> d"))[: 1 + bias]


def _dense(theirs: str, ours: str, pattern: str, bias: str) -> tuple[Rule, ...]:
    return (
        Rule(f"{theirs}.weight", (f"{ours}/kernel",), pattern),
        Rule(f"{theirs}.bias", (f"{ours}/bias",), bias),
    )


def _joined(theirs: str, pattern: str, bias: str) -> tuple[Rule, ...]:
    """Query, key and value in one tensor."""
    names = [f"{_ATTENTION}/{name}" for name in ("query", "key", "value")]
    return (
        Rule(f"{theirs}.weight", tuple(f"{n}/kernel" for n in names), pattern),
        Rule(f"{theirs}.bias", tuple(f"{n}/bias" for n in names), bias),
    )


GPT2 = Family(
    name="gpt2",
    model="GPT2LMHeadModel",
    classifier="GPT2ForSequenceClassification",
    trunk="transformer.",
    keys=dict(
        vocab_size="vocab_size",
        context_length="n_positions",
        num_layers="n_layer",
        width="n_embd",
        num_heads="n_head",
        mlp_width="n_inner",
        norm_eps="layer_norm_epsilon",
        tied_head="tie_word_embeddings",
    ),
    defaults=dict(n_inner=None, tie_word_embeddings=True),
    switches=dict(positions="learned", norm="layer_norm"),
    activations=dict(gelu_new="gelu_tanh", gelu_pytorch_tanh="gelu_tanh", gelu="gelu"),
    activation_key="activation_function",
    needed=dict(
        scale_attn_weights=True,
        scale_attn_by_inverse_layer_idx=False,
        add_cross_attention=False,
    ),
    rules=(
        Rule("wte.weight", ("token_embedding",), "v d -> v d"),
        Rule("wpe.weight", ("position_embedding",), "t d -> t d"),
        *_norm("h.{}.ln_1", "layers/ln_1"),
        *_norm("h.{}.ln_2", "layers/ln_2"),
        *_joined("h.{}.attn.c_attn", "d (n h c) -> n d h c", "(n h c) -> n h c"),
        *_dense("h.{}.attn.c_proj", f"{_ATTENTION}/out", "(h c) d -> h c d", "d -> d"),
        *_dense("h.{}.mlp.c_fc", f"{_MLP}/up", "d f -> d f", "f -> f"),
        *_dense("h.{}.mlp.c_proj", f"{_MLP}/down", "f d -> f d", "d -> d"),
        *_norm("ln_f", "ln_f"),
    ),
    head="lm_head.weight",
    buffers=(".attn.bias", ".attn.masked_bias"),
)

_ROTARY_KEYS = dict(
    vocab_size="vocab_size",
    context_length="max_position_embeddings",
    num_layers="num_hidden_layers",
    width="hidden_size",
    num_heads="num_attention_heads",
    mlp_width="intermediate_size",
    tied_head="tie_word_embeddings",
)

GPT_NEOX = Family(
    name="gpt_neox",
    model="GPTNeoXForCausalLM",
    classifier="GPTNeoXForSequenceClassification",
    trunk="gpt_neox.",
    keys=dict(
        **_ROTARY_KEYS,
        norm_eps="layer_norm_eps",
        parallel_residual="use_parallel_residual",
    ),
    defaults=dict(tie_word_embeddings=False, use_parallel_residual=True),
    switches=dict(positions="rotary", norm="layer_norm"),
    activations=dict(gelu="gelu", gelu_new="gelu_tanh", gelu_pytorch_tanh="gelu_tanh"),
    activation_key="hidden_act",
    needed=dict(attention_bias=True),
    rules=(
        Rule("embed_in.weight", ("token_embedding",), "v d -> v d"),
        *_norm("layers.{}.input_layernorm", "layers/ln_1"),
        *_norm("layers.{}.post_attention_layernorm", "layers/ln_2"),
        *_joined(
            "layers.{}.attention.query_key_value",
            "(h n c) d -> n d h c",
            "(h n c) -> n h c",
        ),
        *_dense(
            "layers.{}.attention.dense",
            f"{_ATTENTION}/out",
            "d (h c) -> h c d",
            "d -> d",
        ),
        *_dense("layers.{}.mlp.dense_h_to_4h", f"{_MLP}/up", "f d -> d f", "f -> f"),
        *_dense("layers.{}.mlp.dense_4h_to_h", f"{_MLP}/down", "d f -> f d", "d -> d"),
        *_norm("final_layer_norm", "ln_f"),
    ),
    head="embed_out.weight",
    buffers=(".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"),
    partial_rotary=True,
)

_LLAMA_RULES = (
    Rule("embed_tokens.weight", ("token_embedding",), "v d -> v d"),
    *_norm("layers.{}.input_layernorm", "layers/ln_1", bias=False),
    *_norm("layers.{}.post_attention_layernorm", "layers/ln_2", bias=False),
    *(
        rule
        for theirs, ours, heads in (
            ("q_proj", "query", "h"),
            ("k_proj", "key", "g"),
            ("v_proj", "value", "g"),
        )
        for rule in _dense(
            f"layers.{{}}.self_attn.{theirs}",
            f"{_ATTENTION}/{ours}",
            f"({heads} c) d -> d {heads} c",
            f"({heads} c) -> {heads} c",
        )
    ),
    *_dense(
        "layers.{}.self_attn.o_proj", f"{_ATTENTION}/out", "d (h c) -> h c d", "d -> d"
    ),
    *_dense("layers.{}.mlp.gate_proj", f"{_MLP}/gate", "f d -> d f", "f -> f"),
    *_dense("layers.{}.mlp.up_proj", f"{_MLP}/up", "f d -> d f", "f -> f"),
    *_dense("layers.{}.mlp.down_proj", f"{_MLP}/down", "d f -> f d", "d -> d"),
    *_norm("norm", "ln_f", bias=False),
)
_LLAMA_KEYS = dict(
    **_ROTARY_KEYS,
    num_kv_heads="num_key_value_heads",
    norm_eps="rms_norm_eps",
)

LLAMA = Family(
    name="llama",
    model="LlamaForCausalLM",
    classifier="LlamaForSequenceClassification",
    trunk="model.",
    keys=dict(**_LLAMA_KEYS, head_dim="head_dim", mlp_bias="mlp_bias"),
    defaults=dict(
        num_key_value_heads=None,
        head_dim=None,
        mlp_bias=False,
        tie_word_embeddings=False,
    ),
    switches=dict(positions="rotary", norm="rms_norm", qkv_bias=False, out_bias=False),
    activations=dict(silu="swiglu", swish="swiglu"),
    activation_key="hidden_act",
    needed=dict(attention_bias=False),
    rules=_LLAMA_RULES,
    head="lm_head.weight",
    buffers=(".rotary_emb.inv_freq",),
)

QWEN2 = dataclasses.replace(
    LLAMA,
    name="qwen2",
    model="Qwen2ForCausalLM",
    classifier="Qwen2ForSequenceClassification",
    keys=_LLAMA_KEYS,
    defaults=dict(num_key_value_heads=None, tie_word_embeddings=False),
    switches=dict(
        positions="rotary",
        norm="rms_norm",
        qkv_bias=True,
        out_bias=False,
        mlp_bias=False,
    ),
    needed=dict(use_sliding_window=False),
)

FAMILIES = {family.name: family for family in (GPT2, GPT_NEOX, LLAMA, QWEN2)}
# Fields of ModelConfig that only training sets and that no public file holds.
_OURS_ALONE = (
    *("padded_vocab_size", "embedding_std", "position_std", "position_init"),
    *("residual_dropout", "compute_dtype", "product_dtype", "remat", "logit_chunk"),
    *("kernels", "fused_attention", "scan_layers", "sequence_parallel"),
)


def read_config(public: Mapping[str, Any], *, where: str) -> tuple[Family, ModelConfig]:
    """The family and the model config that a config.json describes.

    Args:
      public: The content of the config.json.
      where: Named at the start of error messages.

    Raises:
      UserError: the architecture is unknown, a key is missing, or one has a value that
        this model cannot follow.
    """
    kind = public.get("model_type")
    if not isinstance(kind, str) or kind not in FAMILIES:
        raise UserError(
            f"{where}: model_type={kind!r} is not supported; known: "
            f"{', '.join(FAMILIES)}"
        )
    family = FAMILIES[kind]
    whole = {**family.defaults, **public}
    _check_needed(family, whole, where)
    activation = whole[family.activation_key]
    if not isinstance(activation, str) or activation not in family.activations:
        raise UserError(
            f"{where}: {family.activation_key}={activation!r} is not supported; known: "
            f"{', '.join(family.activations)}"
        )
    fields: dict[str, Any] = {}
    for ours, theirs in family.keys.items():
        # In config.json null stands for the default, as 0 does in ModelConfig.
        if whole[theirs] is not None or family.defaults.get(theirs, ...) is not None:
            fields[ours] = _READERS[_HINTS[ours]](whole[theirs], f"{where}: {theirs}")
    fields |= family.switches
    fields["activation"] = family.activations[activation]
    if family.switches["positions"] == "rotary":
        fields |= read_rotary(
            whole,
            head_dim=fields.get("head_dim") or fields["width"] // fields["num_heads"],
            where=where,
            partial=family.partial_rotary,
        )
    with about(where):
        return family, ModelConfig(**fields)


# Reader of a value for each type of our fields; integer types carry their ranges.
_HINTS = {
    name: hint if hint in (bool, float) else int
    for name, hint in typing.get_type_hints(ModelConfig).items()
}
_READERS: dict[Any, Callable[[Any, str], Any]] = {
    bool: truth,
    float: positive,
    int: whole_number,
}


def _check_needed(family: Family, public: Mapping[str, Any], where: str) -> None:
    """Raises UserError if a key is missing, or asks for what the model cannot do."""
    for key in (*family.keys.values(), family.activation_key):
        if key not in public:
            raise UserError(f"{where}: key {key!r} is missing; copy the file again")
    for key, value in family.needed.items():
        if public.get(key) not in (None, value):
            raise UserError(
                f"{where}: {key}={public[key]!r} is not supported, only {value!r}"
            )
    kinds = public.get("layer_types")
    if kinds is not None and any(
        kind != "full_attention"
        for kind in (kinds if isinstance(kinds, list) else [kinds])
    ):
        raise UserError(
            f"{where}: layer_types is {describe(kinds)}; only 'full_attention' is "
            "supported"
        )


def write_config(config: ModelConfig) -> tuple[Family, dict[str, Any]]:
    """The family whose config.json describes this model, and that file's content.

    Raises:
      UserError: no family can; the message names the values that the nearest family
        lacks.
    """
    target = dataclasses.replace(config, padded_vocab_size=config.vocab_size)
    reasons = {}
    for family in FAMILIES.values():
        public = _write(family, config)
        back = read_config(public, where=family.name)[1]
        different = [
            field.name
            for field in dataclasses.fields(ModelConfig)
            if field.name not in _OURS_ALONE
            and getattr(back, field.name) != getattr(target, field.name)
        ]
        if not different:
            return family, public
        reasons[family.name] = different
    nearest = min(reasons, key=lambda name: len(reasons[name]))
    values = ", ".join(f"{n}={getattr(config, n)!r}" for n in reasons[nearest])
    raise UserError(
        f"no public family describes this model; {nearest} is nearest but has no "
        f"{values}"
    )


def _write(family: Family, config: ModelConfig) -> dict[str, Any]:
    public = {theirs: getattr(config, ours) for ours, theirs in family.keys.items()}
    activation = next(
        (a for a, ours in family.activations.items() if ours == config.activation),
        next(iter(family.activations)),
    )
    public |= {"model_type": family.name, family.activation_key: activation}
    public |= family.needed
    if family.switches["positions"] == "rotary":
        public |= write_rotary(config, partial=family.partial_rotary)
    return public


def rules_of(family: Family, config: ModelConfig) -> tuple[Rule, ...]:
    """The rules for all tensors of a model with this config, unembedding included.

    Args:
      family: The model's family.
      config: The model's config, which says which biases exist and if the head is tied.
    """
    rules = [
        rule._replace(theirs=family.trunk + rule.theirs)
        for rule in family.rules
        if not _lacks(config, rule)
    ]
    if not config.tied_head:
        rules.append(Rule(family.head, ("unembedding",), "v d -> v d"))
    return tuple(rules)


def _lacks(config: ModelConfig, rule: Rule) -> bool:
    """Whether the rule's tensor is a bias that the model does not have."""
    module, _, name = rule.ours[0].rpartition("/")
    if name != "bias":
        return False
    if module.startswith(_MLP):
        return not config.mlp_bias
    if module.startswith(_ATTENTION):
        return not (config.out_bias if module.endswith("out") else config.qkv_bias)
    return False
