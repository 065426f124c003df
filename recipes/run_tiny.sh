#!/usr/bin/env bash
# The whole method on this machine in minutes; arguments are those of run.sh, after the name.
exec bash "$(dirname "${BASH_SOURCE[0]}")/run.sh" tiny "$@"
