#!/usr/bin/env bash
# Set-up, linter, types and the default tests; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/setup.sh
longshort_setup dev
python -m ruff check .
python -m mypy
PYTHON=python bash tests/bare_reward.sh
exec python -m pytest "$@"
