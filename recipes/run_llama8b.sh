#!/usr/bin/env bash
# Long⊗Short on Llama3.1-8B; arguments are those of run.sh, after the name.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" llama8b "$@"
