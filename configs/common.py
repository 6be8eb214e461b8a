"""What the stages' config files share: data, mesh and model blocks by variant.

Variants: `smoke` (seconds, for tests), `mini` (the miniature world, minutes on a
CPU), and the paper's sizes `1.3b`, `6b`, `175b` with the paper's numbers.
"""

from ml_collections import ConfigDict

PAPER = ("1.3b", "6b", "175b")
VARIANTS = ("smoke", "mini", *PAPER)


def check(variant: str) -> str:
    """The variant, or an error that names the ones there are."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} does not exist; known: {VARIANTS}")
    return variant


def data(variant: str) -> ConfigDict:
    """Where the sets are and how long rows may be (paper App. C: 1k + 1k tokens)."""
    if variant in PAPER:
        return ConfigDict(
            dict(
                dir="../data",
                # Yours: KIND.SPLIT.jsonl files and a tokenizer's.
                jsonl="data",
                tokenizer="",  # the one in that folder
                template="plain",
                max_prompt=1024,
                max_response=1024,
                world_seed=0,
            )
        )
    sizes = dict(
        documents=(400, 60, 60), demonstrations=(96, 16, 0), prompts=(128, 32, 32)
    )
    if variant == "mini":
        sizes = dict(
            documents=(48000, 500, 500),
            demonstrations=(6000, 120, 0),
            prompts=(10000, 400, 500),
        )
    return ConfigDict(
        dict(
            dir="../data",
            jsonl="",
            tokenizer="",
            template="plain",
            max_prompt=44,
            max_response=24,
            world_seed=0,
            vocab_size=1280,
            **sizes,
        )
    )


def mesh(variant: str) -> ConfigDict:
    """Devices along each axis; -1 takes what remains."""
    if variant in PAPER:
        tensor = {"1.3b": 1, "6b": 1, "175b": 8}[variant]
        return ConfigDict(dict(data=1, fsdp=-1, tensor=tensor))
    return ConfigDict(dict(data=-1, fsdp=1, tensor=1))


def fine_tuning_model(variant: str, *, residual_dropout: float = 0.0) -> ConfigDict:
    """What a stage changes of the model that it starts from."""
    block = dict(residual_dropout=residual_dropout)
    if variant in PAPER:
        block["remat"] = "full"
    return ConfigDict(block)
