"""Supervised fine-tuning: the SFT baselines (paper §3.5, C.1).

    python -m instructgpt.main --config=configs/sft.py:mini --workdir=runs/mini/sft

16 epochs, residual dropout 0.2, cosine to 10 %, no warmup, a checkpoint an epoch.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "mini") -> ConfigDict:
    common.check(variant)
    config = ConfigDict(dict(stage="sft", name="sft", seed=0))
    config.data = common.data(variant)
    config.mesh = common.mesh(variant)
    config.checkpoints = common.checkpoints(variant)
    config.resume = common.resume()
    # Public models were trained without: the first loss in launch/smollm2.sh was
    # 10.72 at 0.2 and 2.366 at 0 (2026-11-25, CPU).
    dropout = 0.0 if variant in common.PUBLIC else 0.2
    config.model = common.fine_tuning_model(variant, residual_dropout=dropout)
    config.init = dict(path=common.base(variant))
    config.sft = dict(
        # The paper does not say whether prompt tokens are in the loss; a prompt is
        # what the model is given, so it learns the response and its EOS.
        loss_on="response",
        pretrain_fraction=0.0,
        # The paper counts demonstrations a batch; packed rows of mini hold 2 to 3.
        pack_length={"smoke": 96, "mini": 96, "gpt2": 1024}.get(
            variant, 2048 if variant in common.PUBLIC else 0
        ),
        num_samples=8,
    )
    rate = {"smoke": 1e-3, "mini": 1e-3, "175b": 5.03e-6}.get(variant, 9.65e-6)
    if variant in ("gpt2", "smollm2"):
        rate = 3e-5  # a tenth of the paper's smallest model
    config.optimizer = dict(learning_rate=rate, schedule="cosine", warmup_steps=0)
    small = variant == "smoke"
    config.train = dict(
        batch_size={"175b": 8, "smoke": 8, "mini": 12}.get(
            variant, 16 if variant in common.PUBLIC else 32
        ),
        num_epochs=2 if small else 16,
        num_steps=0,  # in place of epochs, with num_epochs=0
        microbatches=1,
        log_every=2 if small else 10,
        eval_every=-1,
        checkpoint_every=-1,
        keep=0,
    )
    return config
