#!/usr/bin/env bash
# Set-up, linter, formatter, types, documentation and the default tests; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/setup.sh
longshort_setup dev
python -m ruff check .
python -m ruff format --check .
python -m mypy
site=$(mktemp -d)
# No --quiet: it would hide the warnings from --strict, too.
NO_MKDOCS_2_WARNING=1 python -m mkdocs build --strict --site-dir "$site"
rm -r "$site"
PYTHON=python bash tests/bare_reward.sh
if [ $# -gt 0 ]; then
    exec python -m pytest "$@"
fi
# Whole files on two workers; runs of the trainer one after the other, as each takes the whole machine.
python -m pytest -n 2 --dist loadfile tests/unit tests/contract
exec python -m pytest tests/integration
