"""What the stages' config files share: data, mesh and model blocks by variant.

Variants: `smoke` (seconds, for tests), `mini` (the miniature world, minutes on a
CPU), the paper's sizes `1.3b`, `6b`, `175b` with the paper's numbers, and the public
models `gpt2`, `pythia-1b` and `smollm2` for one GPU of 80 GB or a v5e-8: imported by
`python -m instructgpt.convert import NAME WORKDIR/base`, with data of one's own.
"""

from ml_collections import ConfigDict

PAPER = ("1.3b", "6b", "175b")
PUBLIC = ("gpt2", "pythia-1b", "smollm2")
VARIANTS = ("smoke", "mini", *PAPER, *PUBLIC)


def check(variant: str) -> str:
    """The variant, or an error that names the ones there are."""
    if variant not in VARIANTS:
        raise ValueError(f"variant {variant!r} does not exist; known: {VARIANTS}")
    return variant


def data(variant: str) -> ConfigDict:
    """Where the sets are and how long rows may be (paper App. C: 1k + 1k tokens)."""
    if variant in (*PAPER, *PUBLIC):
        public = variant in PUBLIC
        # GPT-2's context has 1,024 tokens.
        prompt, response = (640, 384) if variant == "gpt2" else (1024, 1024)
        return ConfigDict(
            dict(
                dir="../data",
                # Yours: KIND.SPLIT.jsonl files and, for a model of yours, a tokenizer.
                # Beside the stages, as `dir`, which holds what is made of them, so that
                # a run moves with its records; --config.data.jsonl names others.
                jsonl="../records",
                tokenizer="../base/tokenizer" if public else "",
                template="chatml" if variant == "smollm2" else "plain",
                max_prompt=prompt,
                max_response=response,
                world_seed=0,
            )
        )
    # Of the training, validation and test split each.
    sizes = dict(
        documents=(400, 60, 60),
        demonstrations=(96, 16, 0),
        prompts=(128, 32, 32),
        rm_prompts=(64, 24, 0),
    )
    if variant == "mini":
        sizes = dict(
            documents=(48000, 500, 500),
            demonstrations=(4800, 120, 0),
            prompts=(15500, 500, 500),
            rm_prompts=(20000, 300, 0),
        )
    return ConfigDict(
        dict(
            dir="../data",
            jsonl="",
            tokenizer="",
            template="plain",
            max_prompt=40,
            max_response=24,
            world_seed=0,
            vocab_size=1280,
            **sizes,
        )
    )


def mesh(variant: str) -> ConfigDict:
    """Devices along each axis; -1 takes what remains."""
    if variant in (*PAPER, *PUBLIC):
        tensor = 8 if variant == "175b" else 1
        return ConfigDict(dict(data=1, fsdp=-1, tensor=tensor))
    return ConfigDict(dict(data=-1, fsdp=1, tensor=1))


def checkpoints(variant: str) -> ConfigDict:
    """What is compared with its checksum when a checkpoint is read.

    "files" stands for files and arrays, and "arrays" for these alone. The files are
    read by the first process, the arrays summed by the devices that hold them, so that
    the large sizes leave out the files. `tests/benchmarks/verify.py` measures both.
    """
    return ConfigDict(dict(verify="arrays" if variant in ("6b", "175b") else "files"))


def resume() -> ConfigDict:
    """What may differ from the run that the workdir holds: nothing, until asked."""
    return ConfigDict(dict(changed=()))


def sequence_parallel(variant: str) -> bool:
    """Whether tokens are cut over `tensor` between layers: where it is used."""
    return variant == "175b"


def fine_tuning_model(variant: str, *, residual_dropout: float = 0.0) -> ConfigDict:
    """What a stage changes of the model that it starts from."""
    block = dict(residual_dropout=residual_dropout)
    if variant == "mini":
        block["product_dtype"] = "auto"
        block["scan_layers"] = False  # few layers: a fast program, soon compiled
        block["remat"] = "none"  # which then takes no more memory on a CPU
    if variant in (*PAPER, *PUBLIC):
        block["remat"] = "full"
        block["fused_attention"] = True
        block["sequence_parallel"] = sequence_parallel(variant)
    if variant in PUBLIC:
        block["compute_dtype"] = "bfloat16"  # of GPUs and TPUs; imported: float32
    return ConfigDict(block)


def base(variant: str) -> str:
    """The pretrained model's workdir: imported, or trained by the pretrain stage."""
    return "../base" if variant in PUBLIC else "../pretrain"
