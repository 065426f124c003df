#!/usr/bin/env bash
# The parts of the method, one changed at a time, over three seeds of the miniature world: one table, hours. DRY_RUN=1 lists
# the runs with their minutes and checks every command. Arguments are those of benchmarks/ablation.py (--list, --help).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/setup.sh
longshort_setup
[ "${DRY_RUN:-0}" = 0 ] || set -- --dry-run "$@"
exec python benchmarks/ablation.py "$@"
