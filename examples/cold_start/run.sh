#!/usr/bin/env bash
# Chains of thought of your own, made into joint trajectories for the SFT of a pair.
#   bash examples/cold_start/run.sh CHAINS.jsonl OUT BASE URL MODEL [key=value ...]
#
# BASE: the model whose rollouts weigh the thoughts, and that will be fine-tuned. URL and MODEL: an OpenAI-compatible
# endpoint and its name for the model that shortens what is not important. Further arguments go to `longshort weigh`.
set -euo pipefail
chains=$1 out=$2 base=$3 url=$4 model=$5
shift 5
longshort chunk longshort.input="$chains" longshort.output="$out/thoughts.jsonl" longshort.method=rules
longshort weigh longshort.input="$out/thoughts.jsonl" longshort.output="$out/weighed.jsonl" longshort.model="$base" "$@"
longshort coldstart longshort.input="$out/weighed.jsonl" longshort.output_dir="$out/cold_start" longshort.rule=m \
    longshort.llm.base_url="$url" longshort.llm.model="$model" longshort.val_percent=0
cat "$out/cold_start/card.md"
