#!/usr/bin/env bash
# Runs on GPU nodes under SLURM, with one process per GPU. The job resumes if a node
# fails or it is preempted.
#
#   NODES=2 GPUS=8 SHARED=/shared/me bash launch/slurm.sh \
#     --config=configs/ppo_ptx.py:1.3b --workdir=/shared/me/runs/ppo_ptx
#
# SHARED is a folder that all nodes see, for the commit's code and its environment.
# Also read: PARTITION, ACCOUNT, TIME (1-00:00:00), JOB (instructgpt). --dry-run prints
# what would be run.
set -euo pipefail

# shellcheck source=launch/machines.sh
source "$(dirname "${BASH_SOURCE[0]}")/machines.sh"
read_line "$@"
need NODES GPUS SHARED
need_line
absolute_workdir
read_commit

code=$SHARED/code/$commit
script=$(steps "cd $(quoted "$code")" "source launch/setup_env.sh" "setup_env gpu" \
  "exec srun --kill-on-bad-exit=1 $(main_line --coordinator=auto)")

options=(--job-name="${JOB:-instructgpt}" --nodes="$NODES" --ntasks-per-node="$GPUS"
  --gpus-per-node="$GPUS" --exclusive --time="${TIME:-1-00:00:00}" --requeue
  --signal=TERM@120 --open-mode=append --output="$SHARED/logs/%x-%j.log")
[ -z "${PARTITION:-}" ] || options+=(--partition="$PARTITION")
[ -z "${ACCOUNT:-}" ] || options+=(--account="$ACCOUNT")

run mkdir -p "$SHARED/logs"
ship_to "$code"
run sbatch "${options[@]}" --wrap="bash -c $(quoted "$script")"
