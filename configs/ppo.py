"""PPO without the pretraining mix (paper §3.5, C.4): gamma = 0.

    python -m instructgpt.main --config=configs/ppo.py:mini --workdir=runs/mini/ppo

Paper: 256k episodes, batch 512, minibatch 64, one inner epoch, beta 0.02, clip 0.2,
no discount, EMA 0.992, constant rates after a warmup over 10 iterations from a tenth.
The policy rates are read off Fig. 38; above 8e-6 runs without the mix diverged.
"""

from ml_collections import ConfigDict

from configs import common


def get_config(variant: str = "mini") -> ConfigDict:
    common.check(variant)
    config = ConfigDict(dict(stage="ppo", name="ppo", seed=0))
    config.data = common.data(variant)
    config.mesh = common.mesh(variant)
    config.checkpoints = common.checkpoints(variant)
    config.resume = common.resume()
    # Dropout is off in PPO, as in Ziegler et al. 2019; the paper does not say.
    config.model = common.fine_tuning_model(variant)
    config.init = dict(path="../rl_init")
    config.reward_init = dict(path="../reward")
    mini = variant == "mini"
    config.ppo = dict(
        # Chosen on validation prompts (world and seed 0, commit 05a64d9, 2026-11-29):
        # at 0.1, 0.2 and 0.4 PPO's win rate was 0.616, 0.605 and 0.571, each +- 0.04,
        # and 0.46, 0.35 and 0.37 of its answers about a text said what is not in it.
        kl_coef=0.2 if mini else 0.02,
        ptx_coef=0.0,
        clip=0.2,
        value_clip=0.2,  # Ziegler et al. 2019
        discount=1.0,
        gae_lambda=0.95,  # Ziegler et al. 2019 and Stiennon et al. 2020
        whiten_advantages=True,  # so that one rate fits rewards of any scale
        ema_decay=0.992,  # per optimiser step; the raw weights act
        # Rows that fit a CPU's cache, or one GPU beside four models.
        microbatches=2 if mini else 4 if variant in common.PUBLIC else 1,
        ptx_microbatches=0,  # of the pretraining rows: as many
    )
    smoke, paper = variant == "smoke", variant in common.PAPER
    world = variant in ("smoke", "mini")
    batch, size = (512, 64) if paper else (16, 8) if smoke else (128, 32)
    config.rollout = dict(
        minibatch_size=size,
        epochs=1,
        temperature=1.0,
        top_p=1.0,
        slots=0,  # all prompts at once
        refill=0,
        prompt_buckets=1,
        ptx_per_episode=0.0,
        ptx_length=96 if world else 0 if paper else 1024,
        truncation_score=None,
        score_microbatches=batch // size if world else 1,  # what fits a CPU's cache
        num_prompts=0,
        num_samples=8,
    )
    rate = {"smoke": 5e-4, "mini": 5e-4, "1.3b": 3.74e-6, "pythia-1b": 3.74e-6}
    rate |= {"gpt2": 1e-5, "smollm2": 1e-5}
    rate = rate.get(variant, 2.55e-6)
    value_rate = {"smoke": 5e-4, "mini": 5e-4, "175b": 5e-6}.get(variant, 9e-6)
    warmup = 4 if world else 10 * batch // size
    shared = dict(
        schedule="constant", warmup_steps=warmup, warmup_from=0.1, clip_norm=1.0
    )
    config.policy_optimizer = dict(learning_rate=rate, **shared)
    config.value_optimizer = dict(learning_rate=value_rate, **shared)
    config.train = dict(
        batch_size=batch,
        num_steps={"smoke": 4, "mini": 120}.get(variant, 500),
        log_every=1,
        eval_every=2 if smoke else 20,
        checkpoint_every=1 if smoke else 20,
    )
    return config
