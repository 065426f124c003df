#!/usr/bin/env bash
# Runs a recipe of this folder: run.sh NAME [key=value ...] [options of `longshort recipe`]. Makes the environment first,
# once. DRY_RUN=1 checks every stage and shows the plan. NNODES and RAY_ADDRESS: a Ray cluster that is up already.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/setup.sh
longshort_setup
exec longshort recipe "recipes/$1.yaml" "${@:2}"
