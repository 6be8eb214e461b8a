#!/usr/bin/env bash
# Runs on any cloud, as a managed job of SkyPilot, which restarts after a preemption.
#
#   NAME=ppo-ptx ACCELERATOR=H100:8 NODES=2 BUCKET=my-bucket \
#     bash launch/sky.sh --config=configs/ppo_ptx.py:1.3b --workdir=/bucket/ppo_ptx
#
# Also read: SPOT (1 for spot capacity), EXTRA (gpu, or tpu). --dry-run prints what
# would be run.
set -euo pipefail

# shellcheck source=launch/machines.sh
source "$(dirname "${BASH_SOURCE[0]}")/machines.sh"
read_line "$@"
need NAME ACCELERATOR NODES BUCKET
need_line
read_commit
for word in "${line[@]}"; do
  [[ $word != *[[:space:]]* ]] || fail "$word: flags with spaces do not pass through"
done

code=/tmp/instructgpt-$commit
options=(--name="$NAME" --gpus="$ACCELERATOR" --num-nodes="$NODES" --workdir="$code"
  --env LINE="${line[*]}" --env BUCKET="$BUCKET"
  --env EXTRA="${EXTRA:-gpu}" --yes)
[ -z "${SPOT:-}" ] || options+=(--use-spot)

ship_to "$code"
run sky jobs launch "${options[@]}" "$code/launch/sky.yaml"
