#!/usr/bin/env bash
# The tests that are not part of the default run; arguments go to pytest.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/setup.sh
longshort_setup dev
exec python -m pytest -m slow "$@"
