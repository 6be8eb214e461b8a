#!/usr/bin/env bash
# Runs several processes on this machine as one program, like several hosts: to test a
# launch before machines are rented, or to divide a CPU.
#
#   PROCESSES=2 bash launch/local.sh --config=configs/sft.py:smoke --workdir=runs/sft
#   PROCESSES=2 bash launch/local.sh --dry-run --config=... --workdir=...
#
# JAX_NUM_CPU_DEVICES=4 gives each process four devices. PORT is the port of process 0
# (default 8476). If one process ends, the others are ended, and the same line resumes
# from the last checkpoint.
set -euo pipefail

# shellcheck source=launch/machines.sh
source "$(dirname "${BASH_SOURCE[0]}")/machines.sh"
read_line "$@"
need PROCESSES
need_line
port=${PORT:-8476}

line_of() { # process $1
  main_line "--coordinator=localhost:$port" "--num_processes=$PROCESSES" \
    "--process_id=$1"
}

if [ "$dry_run" = yes ]; then
  for ((i = 0; i < PROCESSES; i++)); do line_of "$i"; done
  exit
fi

# shellcheck source=launch/setup_env.sh
source "$root/launch/setup_env.sh"
setup_env
go_back
pids=()
for ((i = 0; i < PROCESSES; i++)); do
  eval "exec $(line_of "$i")" 2> >(sed -u "s/^/[process $i] /" >&2) &
  pids+=($!)
done
# When they are asked to stop, the processes save first.
asked=143
trap 'kill -TERM "${pids[@]}" 2> /dev/null || true' TERM
trap 'asked=130; kill -TERM "${pids[@]}" 2> /dev/null || true' INT

left=${#pids[@]}
while [ "$left" -gt 0 ]; do
  code=0
  wait -n -p ended "${pids[@]}" || code=$?
  [ -n "${ended:-}" ] || continue # it was a signal
  for i in "${!pids[@]}"; do
    [ "${pids[$i]}" != "$ended" ] || { number=$i && unset "pids[$i]"; }
  done
  left=${#pids[@]}
  if [ "$code" = 143 ]; then code=$asked; fi
  if [ "$code" != 0 ]; then
    echo "process $number of $PROCESSES ended with exit code $code;" \
      "ending the others. The same line resumes." >&2
    [ "$left" = 0 ] || kill -KILL "${pids[@]}" 2> /dev/null || true
    exit "$code"
  fi
done
