#!/usr/bin/env bash
# Runs on TPU slices of a GKE cluster, through xpk (pip install xpk).
#
#   NAME=ppo-ptx CLUSTER=my-cluster ZONE=us-east5-a ACCELERATOR=v5litepod-16 \
#     bash launch/gke.sh --config=configs/ppo_ptx.py:1.3b --workdir=/bucket/ppo_ptx
#
# The workdir must outlive a pod: attach a bucket with `xpk storage attach` and name a
# folder of its mount. Also read: PROJECT, SLICES (1), RESTARTS (10), IMAGE
# (python:3.12). --dry-run prints what would be run.
set -euo pipefail

# shellcheck source=launch/machines.sh
source "$(dirname "${BASH_SOURCE[0]}")/machines.sh"
read_line "$@"
need NAME CLUSTER ZONE ACCELERATOR
need_line
read_commit

code=/tmp/instructgpt-$commit
options=(--cluster="$CLUSTER" --zone="$ZONE" --workload="$NAME"
  --device-type="$ACCELERATOR" --num-slices="${SLICES:-1}"
  --max-restarts="${RESTARTS:-10}" --base-docker-image="${IMAGE:-python:3.12}"
  --script-dir="$code")
[ -z "${PROJECT:-}" ] || options+=(--project="$PROJECT")

script=$(steps "source launch/setup_env.sh" "setup_env tpu" \
  "exec $(main_line --coordinator=auto)")

ship_to "$code"
run xpk workload create "${options[@]}" --command="bash -c $(quoted "$script")"
