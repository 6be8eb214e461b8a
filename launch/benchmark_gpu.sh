#!/usr/bin/env bash
# Measures one GPU at the size of the paper's 1.3B models, relative to its peak rates:
# SFT at 2,048 tokens, decoding of 64 rows, an iteration of PPO-ptx with its phases, and
# the memory of each model and phase.
#
#   bash launch/benchmark_gpu.sh [--dtype=bfloat16 --batch=8 ...]
#
# `roofline` of a line is a share of the device's peak rate: that of matrix products for
# updates, that of the memory (weights and cache, read once per token) for decoding.
set -euo pipefail

# shellcheck source=launch/setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env test

size=(--layers=24 --width=2048 --heads=16 --vocab=50304 --context=2048
  --dtype=bfloat16 --fused --scan_layers)
run() {
  local job=$1
  shift
  python tests/benchmarks/run.py "$job" "${size[@]}" --profile "$@"
}
run sft --batch=8 --seq=2048 --remat=dots "$@"
run sample --samples=64 --prompt=512 --response=256 "$@"
run ppo --memory --episodes=64 --minibatch=16 --ppo_prompt=512 --ppo_response=256 \
  --ptx=8 --seq=1024 --remat=dots "$@"
