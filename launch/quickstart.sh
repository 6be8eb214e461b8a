#!/usr/bin/env bash
# Reproduces the paper's Figure 1 in small on an empty machine: sets up .venv, runs the
# recipe on the miniature world and prints the report's path. Run again, it resumes.
#
#   bash launch/quickstart.sh [--config.key=value ...]
#   WORKDIR=elsewhere bash launch/quickstart.sh
set -euo pipefail

# shellcheck source=launch/setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env

# A CPU is used as two devices that sample separate rows, which is faster than to split
# each operation over two cores. Batches of `mini` divide by two.
if [ "$(nproc 2> /dev/null || echo 1)" -ge 2 ]; then
  export JAX_NUM_CPU_DEVICES="${JAX_NUM_CPU_DEVICES:-2}"
fi

# On a CPU LLVM optimises less, because programs run only for minutes, and XLA's older
# emitters are used, whose programs are as fast and compile sooner. Later jaxlibs stop
# at a flag that was removed.
if [ -z "$accelerator" ]; then
  flags=--xla_backend_optimization_level=1
  case $(python -c 'from importlib.metadata import version; print(version("jaxlib"))') in
    0.10.*) flags="$flags --xla_cpu_use_fusion_emitters=false" ;;
  esac
  export XLA_FLAGS="$flags ${XLA_FLAGS:-}"
fi

go_back

# Ends with the table of results, the path of report.html, and the lines that talk to
# the models.
exec python -m instructgpt.main \
  --config="$root/configs/recipe.py:mini" --workdir="${WORKDIR:-$root/runs/mini}" "$@"
