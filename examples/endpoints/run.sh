#!/usr/bin/env bash
# Evaluates a pair whose models are behind two OpenAI-compatible servers, at LONG_URL and SHORT_URL.
#   bash examples/endpoints/run.sh LONG SHORT PROBLEMS OUT [key=value ...]
#
# LONG and SHORT are the servers' names for the models. LONG_TOKENIZER and SHORT_TOKENIZER: their tokenizers, where
# those are not to be had under the same names. A key that both servers want is named by KEY_ENV.
set -euo pipefail
long=$1 short=$2 problems=$3 out=$4
shift 4
longshort eval longshort.name=pair longshort.models.long="$long" longshort.models.short="$short" \
    longshort.endpoint.base_url.long="$LONG_URL" longshort.endpoint.base_url.short="$SHORT_URL" \
    longshort.endpoint.tokenizer.long="${LONG_TOKENIZER:-$long}" \
    longshort.endpoint.tokenizer.short="${SHORT_TOKENIZER:-$short}" \
    longshort.endpoint.api_key_env="${KEY_ENV:-null}" \
    longshort.data="$problems" longshort.output_dir="$out" "$@"
longshort table "$out/pair.jsonl" --details
