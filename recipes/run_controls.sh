#!/usr/bin/env bash
# The controls of a finished tiny run; arguments are those of run.sh, after the name.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" controls "$@"
