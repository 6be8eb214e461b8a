# Sourced by the scripts beside it that start a run on machines of yours or rented ones.
# shellcheck shell=bash

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
dry_run=no
line=() # the flags of `python -m instructgpt.main`

# read_line ARGUMENT...: takes --dry-run out; the rest is the line to run.
read_line() {
  local argument
  for argument in "$@"; do
    case $argument in
      --dry-run) dry_run=yes ;;
      *) line+=("$argument") ;;
    esac
  done
}

fail() {
  echo "error: $*" >&2
  exit 2
}

# need NAME...: refuses to go on, and names every setting that is missing.
need() {
  local setting missing=()
  for setting in "$@"; do
    [ -n "${!setting:-}" ] || missing+=("$setting")
  done
  [ ${#missing[@]} = 0 ] ||
    fail "set ${missing[*]}, as the first lines of ${0##*/} say"
}

# need_line: refuses a line without a config file or a workdir.
need_line() {
  local flag
  for flag in --config --workdir; do
    case " ${line[*]}" in
      *" $flag="*) ;;
      *) fail "give $flag=..., as for python -m instructgpt.main" ;;
    esac
  done
}

# quoted WORD...: as one line that bash reads as the same words.
quoted() {
  local word out=()
  for word in "$@"; do
    case $word in
      "" | *[!A-Za-z0-9_./:=,@%+-]*) out+=("${word@Q}") ;;
      *) out+=("$word") ;;
    esac
  done
  echo "${out[*]}"
}

# run COMMAND...: runs it, or prints exactly what it would run.
run() {
  if [ "$dry_run" = yes ]; then
    quoted "$@"
  else
    "$@"
  fi
}

# steps COMMAND...: one command of several, each only if those before went well; without
# a newline, so that any shell reads it.
steps() {
  local joined
  joined=$(printf ' && %s' "$@")
  echo "${joined# && }"
}

# ship_to FOLDER: the commit's files.
ship_to() {
  run mkdir -p "$1"
  run bash -c "git -C $(quoted "$root") archive $commit | tar -x -C $(quoted "$1")"
}

# read_commit: the commit that is shipped, in $commit. Machines get it, not the working
# tree, so that what ran can be found again.
read_commit() {
  commit=$(git -C "$root" rev-parse HEAD) || fail "$root is not a git checkout"
  if [ "$dry_run" = no ] && [ -n "$(git -C "$root" status --porcelain)" ]; then
    fail "the working tree has changes that the machines would not get; commit or stash"
  fi
}

# main_line COORDINATOR_FLAGS...: the one command that every script ends in.
main_line() {
  quoted python -m instructgpt.main "$@" "${line[@]}"
}
