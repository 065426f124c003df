#!/usr/bin/env bash
# The whole method on this machine in minutes; arguments are key=value for recipes/tiny.yaml.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/setup.sh
longshort_setup
exec longshort recipe recipes/tiny.yaml "$@"
