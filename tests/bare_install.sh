#!/usr/bin/env bash
# Both distributions are built as for PyPI, installed in a bare environment with all that they need, and looked at.
# Takes minutes and some 3 GB. The commands are those of docker/Dockerfile.cpu.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
source "$root/recipes/setup.sh"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH
"$(_longshort_base_python)" -m venv venv
PATH="$folder/venv/bin:$PATH"
# A copy: building leaves files beside the sources.
mkdir source
git -C "$root" ls-files -z --cached --others --exclude-standard -- reward recipes verl_longshort pyproject.toml \
    README.md LICENSE | tar -C "$root" --null --files-from - --create | tar -C source --extract
python -m pip install -q --disable-pip-version-check "build>=1.2"
python -m build --outdir dist source/reward
python -m build --outdir dist source
_longshort_install_torch python
python -m pip install -q --disable-pip-version-check dist/longshort_reward-*.whl "$(echo dist/verl_longshort-*.whl)[cpu]"
_longshort_drop_broken python
longshort --help >/dev/null
longshort serve --help >/dev/null
longshort recipe tiny --dry-run output=out
longshort doctor
echo "both distributions work in a bare environment: $(ls dist)"
