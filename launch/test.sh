#!/usr/bin/env bash
# Sets up .venv with the test tools, then lint, format, types and tests.
#
#   bash launch/test.sh [pytest arguments, such as tests/test_rl.py or -k gae]
#
# Without arguments it leaves out the tests that are marked long: every line of every
# README, the notebooks, kills and damages, the recipe without fast modules. `-m ""` runs
# them too.
set -euo pipefail

# shellcheck source=launch/setup_env.sh
source "$(dirname "${BASH_SOURCE[0]}")/setup_env.sh"
setup_env test

ruff check
ruff format --check
mypy
if [ $# -eq 0 ]; then set -- -m "not long"; fi
# One process per core, up to four; conftest.py groups tests that need one process.
python -m pytest --numprocesses=auto --maxprocesses=4 --no-loadscope-reorder "$@"
