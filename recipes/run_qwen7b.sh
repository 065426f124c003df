#!/usr/bin/env bash
# Long⊗Short on Qwen2.5-7B; arguments are those of run.sh, after the name.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" qwen7b "$@"
