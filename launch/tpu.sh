#!/usr/bin/env bash
# Runs on a Cloud TPU slice by queued resources.
#
#   export NAME=my-slice ZONE=us-east5-a ACCELERATOR=v5litepod-16 BUCKET=my-bucket
#   bash launch/tpu.sh create            # ask for it; SPOT=1 for spot capacity
#   bash launch/tpu.sh status            # ACTIVE when it is there
#   bash launch/tpu.sh setup             # ship the commit, install, mount the bucket
#   bash launch/tpu.sh run --config=configs/ppo_ptx.py:1.3b --workdir=bucket/ppo_ptx
#   bash launch/tpu.sh logs
#   bash launch/tpu.sh delete
#   bash launch/tpu.sh retry --config=... --workdir=...   # all of it, again and again
#
# The bucket is the folder `bucket` of every host, so that a workdir there outlives the
# slice: after a preemption the same workdir goes on. `retry` creates, waits, sets up
# and runs until the run has ended well. Also read: PROJECT, RUNTIME (by ACCELERATOR).
# --dry-run prints what would be run.
set -euo pipefail

# shellcheck source=launch/machines.sh
source "$(dirname "${BASH_SOURCE[0]}")/machines.sh"
action=${1:-}
[ $# = 0 ] || shift
read_line "$@"

runtime() {
  case $ACCELERATOR in
    v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) fail "set RUNTIME: which one $ACCELERATOR takes is not known here" ;;
  esac
}

place=()
settings() { # what every action reads
  need NAME ZONE "$@"
  place=(--zone="$ZONE")
  [ -z "${PROJECT:-}" ] || place+=(--project="$PROJECT")
}

queued() { # ACTION FLAG...
  run gcloud compute tpus queued-resources "$1" "$NAME" "${place[@]}" "${@:2}"
}

everywhere() { # COMMAND, on all hosts
  run gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker=all --command="$1"
}

create() {
  settings ACCELERATOR
  local spot=() version=${RUNTIME:-}
  [ -z "${SPOT:-}" ] || spot=(--spot)
  [ -n "$version" ] || version=$(runtime)
  queued create --node-id="$NAME" --accelerator-type="$ACCELERATOR" \
    --runtime-version="$version" "${spot[@]}"
}

state() {
  settings
  gcloud compute tpus queued-resources describe "$NAME" "${place[@]}" \
    --format='value(state.state)'
}

setup() {
  settings BUCKET
  read_commit
  local archive=/tmp/instructgpt-$commit.tar.gz
  # Checkpoints and data sets get their names when they are whole: folders are renamed.
  local mount="gcsfuse --implicit-dirs --rename-dir-limit=100000"
  run git -C "$root" archive --output="$archive" "$commit"
  run gcloud compute tpus tpu-vm scp "$archive" "$NAME":instructgpt.tar.gz \
    "${place[@]}" --worker=all
  everywhere "$(steps "mkdir -p instructgpt bucket" \
    "tar -xzf instructgpt.tar.gz -C instructgpt" \
    "{ mountpoint -q bucket || $mount $(quoted "$BUCKET") bucket; }" \
    "cd instructgpt" "ln -sfn ~/bucket bucket" \
    "source launch/setup_env.sh" "setup_env tpu")"
}

start() {
  settings
  need_line
  # The log of each host is its own; process 0's has the progress.
  everywhere "$(steps "cd instructgpt" "source .venv/bin/activate" "set -o pipefail" \
    "$(main_line --coordinator=auto) 2>&1 | tee -a ~/instructgpt.log")"
}

retry() {
  settings ACCELERATOR BUCKET
  need_line
  if [ "$dry_run" = yes ]; then
    create
    setup
    start
    queued delete --force --quiet
    return
  fi
  while true; do
    case $(state 2> /dev/null || echo MISSING) in
      ACTIVE)
        # Each in a shell of its own, which ends at its first error.
        if bash "$0" setup && bash "$0" run "${line[@]}"; then
          queued delete --force --quiet
          return
        fi
        echo "the run ended early; looking at the slice in a minute" >&2
        ;;
      SUSPENDED | FAILED)
        echo "the slice is gone; asking for another" >&2
        queued delete --force --quiet
        ;;
      MISSING) create ;;
      *) ;; # it is on its way
    esac
    sleep 60
  done
}

case $action in
  create | setup | retry) "$action" ;;
  run) start ;;
  status)
    settings
    queued describe
    ;;
  logs)
    settings
    run gcloud compute tpus tpu-vm ssh "$NAME" "${place[@]}" --worker=0 \
      --command="tail -n 100 -f instructgpt.log"
    ;;
  delete)
    settings
    queued delete --force --quiet
    ;;
  *) fail "say what to do: create, setup, run, logs, status, delete or retry" ;;
esac
