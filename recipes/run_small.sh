#!/usr/bin/env bash
# The whole method on a small pretrained model: on one GPU (small.yaml), or on CPU cores without the Hub (small_cpu.yaml).
#   run_small.sh [model=smollm2|<folder>|<name on the Hub>] [key=value ...] [options of `longshort recipe`]
# Without a GPU, and with model=smollm2, it is the latter. Other arguments are those of run.sh, after the name.
set -euo pipefail
name=small_cpu
if nvidia-smi -L >/dev/null 2>&1; then name=small; fi
arguments=()
for argument in "$@"; do
    case $argument in model=smollm2) name=small_cpu ;; esac
done
for argument in "$@"; do
    case $argument in
        model=*) [ "$name" = small ] && key=model.base || key=model.pretrained; arguments+=("$key=${argument#model=}") ;;
        *) arguments+=("$argument") ;;
    esac
done
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" "$name" ${arguments[@]+"${arguments[@]}"}
