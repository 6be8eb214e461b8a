# Sourced by the scripts beside it; `bash launch/setup_env.sh` only sets up.
#
# Goes to the repository root, makes .venv with the first suitable Python, and installs
# the packages of requirements.txt and pyproject.toml, with JAX for the GPU or TPU of
# this machine. The next time it only compares a checksum.
# shellcheck shell=bash

caller=$PWD
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit 1

# Compiled programs are kept between runs, so that the second run starts faster.
export JAX_COMPILATION_CACHE_DIR="${JAX_COMPILATION_CACHE_DIR:-$PWD/.cache/jax}"
export JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS="${JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS:-0}"

# On a CPU, a training step allocates and frees much memory. With large pages (glibc
# 2.35 and newer) that causes far fewer page faults.
export GLIBC_TUNABLES="${GLIBC_TUNABLES:-glibc.malloc.hugetlb=1}"

# go_back: returns to the folder of the call, to which typed paths are relative. Python
# still finds the packages of this checkout, and none in that folder.
go_back() {
  root=$PWD
  export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}" PYTHONSAFEPATH=1
  cd "$caller" || exit 1
}

# Prints the first Python >= 3.11 that can make a virtual environment; $PYTHON wins.
find_python() {
  local candidate incomplete=""
  for candidate in ${PYTHON:+"$PYTHON"} python3.12 python3.11 python3 python; do
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
      > /dev/null 2>&1; then
      if "$candidate" -c 'import ensurepip, venv' > /dev/null 2>&1; then
        echo "$candidate"
        return
      fi
      incomplete=${incomplete:-$candidate}
    fi
  done
  if [ -n "$incomplete" ]; then
    echo "$incomplete cannot make virtual environments: its venv or ensurepip is" \
      "missing. On Debian or Ubuntu: sudo apt-get install python3-venv" >&2
  else
    echo "Python 3.11 or newer is needed and was not found. Install it, or name it:" \
      "PYTHON=/path/to/python3.12 bash $0" >&2
  fi
  return 1
}

# Prints the extra of pyproject.toml that JAX needs for this machine's accelerator:
# `gpu`, `tpu` or nothing. $ACCELERATOR wins: gpu, tpu or cpu.
find_accelerator() {
  local answer driver
  case ${ACCELERATOR:-} in
    gpu | tpu) echo "$ACCELERATOR" && return ;;
    cpu) return ;;
  esac
  if answer=$(nvidia-smi --query-gpu=name,driver_version --format=csv,noheader 2> /dev/null); then
    driver=$(echo "${answer%%$'\n'*}" | sed -n 's/.*[, ]\([0-9][0-9]*\)\.[0-9.]*$/\1/p')
    if [ "${driver:-999}" -lt 525 ]; then
      echo "The NVIDIA driver $driver is too old for JAX, which needs 525 or newer;" \
        "the CPU will be used" >&2
      return
    fi
    echo gpu
  elif compgen -G '/dev/accel[0-9]*' > /dev/null || compgen -G '/dev/vfio/[0-9]*' > /dev/null; then
    echo tpu
  fi
}

# setup_env [EXTRA]: makes the environment, with the packages of one optional extra and
# those for the machine's accelerator, whose name is then in $accelerator.
setup_env() {
  local extras wanted python
  accelerator=$(find_accelerator)
  extras=${1:-}
  [ -z "$accelerator" ] || [ "$accelerator" = "$extras" ] ||
    extras=${extras:+$extras,}$accelerator
  wanted=$(cat requirements.txt pyproject.toml | cksum)
  if ! .venv/bin/python -m pip --version > /dev/null 2>&1; then
    python=$(find_python)
    echo "Making .venv with $("$python" --version)"
    "$python" -m venv --clear .venv
  fi
  if [ "$(cat ".venv/installed-$extras" 2> /dev/null)" != "$wanted" ]; then
    echo "Installing packages into .venv (the first time takes a few minutes), with" \
      "JAX for the ${accelerator:-cpu}"
    .venv/bin/python -m pip install --quiet --disable-pip-version-check \
      --editable ".${extras:+[$extras]}"
    # An extra includes the packages for the accelerator alone, and the plain ones.
    echo "$wanted" | tee ".venv/installed-$extras" ".venv/installed-$accelerator" \
      > .venv/installed-
  fi
  # shellcheck source=/dev/null
  source .venv/bin/activate
}

if [ "${BASH_SOURCE[0]}" = "$0" ]; then
  set -euo pipefail
  setup_env "$@"
fi
