#!/usr/bin/env bash
# Set-up, linter, types and the default tests; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/setup.sh
longshort_setup dev
python -m ruff check .
python -m mypy
exec python -m pytest "$@"
