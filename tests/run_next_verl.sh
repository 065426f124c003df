#!/usr/bin/env bash
# The contract tests on another verl than this package is made for: they may fail, and then say what broke.
#
#   bash tests/run_next_verl.sh              the newest on PyPI, pre-releases included
#   bash tests/run_next_verl.sh SOURCE …     what pip takes: 'verl==0.10.0', a checkout, git+https://…
#                                            and arguments for pytest
#
# Nothing is installed into the environment: verl alone goes into a folder that Python looks at first.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/setup.sh
longshort_setup dev
source=${1:-verl>=0}
shift $(($# > 0))
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python -m pip install -q --disable-pip-version-check --no-deps --pre --target "$folder" "$source"
export PYTHONPATH=$folder:$PWD:$PWD/reward
python - "$folder" <<'PYTHON'
"""What that verl asks for beside what is installed, by distribution."""
import sys
from importlib.metadata import PackageNotFoundError, distributions, version

from packaging.requirements import Requirement

(verl,) = (one for one in distributions(path=[sys.argv[1]]) if one.metadata["Name"] == "verl")
print(f"verl {verl.version}")
for line in verl.requires or ():
    needed = Requirement(line)
    try:
        found = version(needed.name)
    except PackageNotFoundError:
        continue
    if needed.marker is not None and not any(needed.marker.evaluate({"extra": x}) for x in ("", "verl-core", "vllm")):
        continue
    if not needed.specifier.contains(found, prereleases=True):
        print(f"asks for {needed.name}{needed.specifier}; installed is {found}")
PYTHON
python -m pytest -W ignore tests/contract "$@"
