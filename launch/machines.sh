# Sourced by the scripts beside it that start a run on your own or rented machines.
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

# need NAME...: stops with the names of all settings that are missing.
need() {
  local setting missing=()
  for setting in "$@"; do
    [ -n "${!setting:-}" ] || missing+=("$setting")
  done
  [ ${#missing[@]} = 0 ] ||
    fail "set ${missing[*]}, as the first lines of ${0##*/} say"
}

# need_line: stops if the line has no config file or no workdir.
need_line() {
  local flag
  for flag in --config --workdir; do
    case " ${line[*]}" in
      *" $flag="*) ;;
      *) fail "give $flag=..., as for python -m instructgpt.main" ;;
    esac
  done
}

# absolute_workdir: makes a relative --workdir of the line count from the folder of the
# call, not from the copy of the code that runs on a machine.
absolute_workdir() {
  local i
  for i in "${!line[@]}"; do
    case ${line[$i]} in
      --workdir=/* | --workdir=~*) ;;
      --workdir=*) line[i]=--workdir=$PWD/${line[$i]#--workdir=} ;;
    esac
  done
}

# quoted WORD...: prints one line that bash reads as the same words.
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

# run COMMAND...: runs the command, or prints exactly what it would run.
run() {
  if [ "$dry_run" = yes ]; then
    quoted "$@"
  else
    "$@"
  fi
}

# steps COMMAND...: joins commands so that each runs only if those before succeeded;
# without a newline, so that any shell can read it.
steps() {
  local joined
  joined=$(printf ' && %s' "$@")
  echo "${joined# && }"
}

# ship_to FOLDER: copies the commit's files to a folder.
ship_to() {
  run mkdir -p "$1"
  run bash -c "git -C $(quoted "$root") archive $commit | tar -x -C $(quoted "$1")"
}

# read_commit: sets $commit to the commit that is shipped. Machines get the commit, not
# the working tree, so that the code of a run can be found again.
read_commit() {
  commit=$(git -C "$root" rev-parse HEAD) || fail "$root is not a git checkout"
  if [ -n "$(git -C "$root" status --porcelain)" ]; then
    [ "$dry_run" = yes ] ||
      fail "the working tree has changes that the machines would not get; commit or stash"
    echo "note: the working tree has changes that the machines will not get" >&2
  fi
}

# main_line COORDINATOR_FLAGS...: the command that every script runs at its end.
main_line() {
  quoted python -m instructgpt.main "$@" "${line[@]}"
}
