"""The reward model (paper §3.5, C.2).

    python -m instructgpt.main --config=configs/reward.py:mini \
        --workdir=runs/mini/reward

Exactly one epoch, lr 9e-6, cosine to 10 %, batches of 64 prompts, from the SFT model.
One 6B reward model serves every policy size: run the `6b` variant for all.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "mini") -> ConfigDict:
    common.check(variant)
    config = ConfigDict(dict(stage="reward", name="reward", seed=0))
    config.data = common.data(variant)
    config.mesh = common.mesh(variant)
    config.checkpoints = common.checkpoints(variant)
    config.resume = common.resume()
    if variant == "mini":
        # A step over two devices reads all weights twice, for few tokens each.
        config.mesh.cpu_devices = 1
    config.model = common.fine_tuning_model(variant)
    config.init = dict(path="../sft")
    config.reward = dict(
        # Of public models: the rankings among the data, by people.
        comparisons="" if variant in common.PUBLIC else "../label",
        max_responses=8 if variant == "mini" else 9,
        # The states of public models are large, and so are the first scores at 1.
        head_scale=0.1 if variant in common.PUBLIC else 1.0,
        # With ties dropped, a prompt's mean is over the pairs that count.
        divisor="untied",
    )
    rate = {"smoke": 5e-4, "mini": 5e-4, "gpt2": 2e-5, "smollm2": 2e-5}
    config.optimizer = dict(
        learning_rate=rate.get(variant, 9e-6), schedule="cosine", warmup_steps=0
    )
    config.train = dict(
        batch_size={"smoke": 8, "mini": 4}.get(
            variant, 64 if variant in common.PAPER else 16
        ),
        num_epochs=1,
        microbatches=1,
        log_every=2 if variant == "smoke" else 20,
        eval_every=0,
        checkpoint_every=2 if variant == "smoke" else 250,
    )
    return config
