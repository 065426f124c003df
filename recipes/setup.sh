# shellcheck shell=bash
# Finds or makes the Python environment; sourced by the recipes and tests/run.sh.
#
# An active environment that has verl is used as it is. Otherwise .venv in the project's root is made, once.
# After `longshort_setup` the commands `python` and `longshort` are those of the environment.
#
#   longshort_setup           what a run needs
#   longshort_setup dev       and what the tests need

LONGSHORT_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# This version, or a later one of the same 0.x: pip's `~=`, as in pyproject.toml.
LONGSHORT_VERL=0.9.1
LONGSHORT_TORCH=2.13.0

# The interpreter of the environment: the active one if it has verl, else that of .venv (which may not exist yet).
longshort_python() {
    local active version
    active=$(command -v python || command -v python3 || true)
    if [ -n "$active" ] && version=$("$active" -c 'from importlib.metadata import version as v; print(v("verl"))' 2>/dev/null); then
        if ! _longshort_fits "$version"; then
            echo "setup: the active environment ($active) has verl $version, this project needs ~=$LONGSHORT_VERL;" \
                "deactivate it or run: $active -m pip install 'verl~=$LONGSHORT_VERL'" >&2
            return 1
        fi
        echo "$active"
    else
        echo "$LONGSHORT_ROOT/.venv/bin/python"
    fi
}

longshort_setup() {
    local python extras=${1:-} state stamp wanted lock
    python=$(longshort_python) || return 1
    state=$(_longshort_state "$python")
    stamp="$state/longshort-setup${extras:+-$extras}"
    wanted="$LONGSHORT_ROOT $(cat "$LONGSHORT_ROOT/pyproject.toml" "$LONGSHORT_ROOT/reward/pyproject.toml" | cksum)"
    if [ ! -x "$python" ] || [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
        mkdir -p "$state" || return 1
        exec {lock}>"$state/longshort-setup.lock"
        _longshort_lock "$lock" || return 1
        # Another setup may have done it while this one waited.
        if [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ]; then
            _longshort_install "$python" "$extras" || return 1
            echo "$wanted" >"$stamp.new" && mv "$stamp.new" "$stamp"
        fi
        exec {lock}>&-
    fi
    PATH="$(dirname "$python"):$PATH"
    export PATH
}

_longshort_fits() {
    local rest=${1#"${LONGSHORT_VERL%.*}".}
    [[ $rest != "$1" && $rest =~ ^[0-9]+ ]] && ((BASH_REMATCH[0] >= ${LONGSHORT_VERL##*.}))
}

# Where it is noted what has been installed: in .venv, which it must not outlive; an active environment may be the system's.
_longshort_state() {
    case $1 in
        "$LONGSHORT_ROOT/.venv/"*) echo "$LONGSHORT_ROOT/.venv" ;;
        *) echo "$LONGSHORT_ROOT/.setup/$(echo "$1" | cksum | cut -d' ' -f1)" ;;
    esac
}

_longshort_lock() {
    command -v flock >/dev/null || return 0
    flock -n "$1" && return
    echo "setup: another setup is at work, waiting for it" >&2
    flock -w 3600 "$1" || { echo "setup: it did not end within an hour; stop it and try again" >&2; return 1; }
}

_longshort_install() {
    local python=$1 extras=$2 begin=$SECONDS
    if [ "$python" = "$LONGSHORT_ROOT/.venv/bin/python" ]; then
        _longshort_make_venv "$python" || return 1
        _longshort_install_engine "$python" || return 1
    fi
    "$python" -m pip install -e "$LONGSHORT_ROOT/reward" -e "$LONGSHORT_ROOT${extras:+[$extras]}" >&2 || return 1
    echo "setup: environment ready after $((SECONDS - begin)) s: $python" >&2
}

_longshort_make_venv() {
    local base
    "$1" -m pip --version >/dev/null 2>&1 && return
    base=$(_longshort_base_python) || return 1
    echo "setup: making $LONGSHORT_ROOT/.venv with $base; this takes some minutes, once" >&2
    "$base" -m venv "$LONGSHORT_ROOT/.venv"
}

# torch, verl and what they need on this machine.
_longshort_install_engine() {
    if nvidia-smi -L >/dev/null 2>&1; then
        # flash-attn is built against the torch that vLLM asks for, so that one has to be there before.
        "$1" -m pip install "verl[verl-core,vllm]~=$LONGSHORT_VERL" wheel ninja >&2 || return 1
        "$1" -m pip install --no-build-isolation flash-attn >&2 || return 1
        "$1" -m pip install -e "$LONGSHORT_ROOT/reward" -e "$LONGSHORT_ROOT[gpu]" >&2
    else
        _longshort_install_torch "$1" || return 1
        "$1" -m pip install -e "$LONGSHORT_ROOT/reward" -e "$LONGSHORT_ROOT[cpu]" >&2 || return 1
        _longshort_drop_broken "$1"
    fi
}

# PyPI's torch carries gigabytes of CUDA. The index may be out of reach: it is asked for this one file, briefly, and
# torch's dependencies come with the next step.
_longshort_install_torch() {
    "$1" -m pip install --no-deps --retries 1 --timeout 15 --extra-index-url https://download.pytorch.org/whl/cpu \
        "torch==$LONGSHORT_TORCH" >&2
}

# pip takes the CUDA builds of these beside a CPU torch; they fail to import, and transformers imports them.
_longshort_drop_broken() {
    local package
    for package in torchvision torchaudio torchcodec; do
        if "$1" -m pip show -q "$package" 2>/dev/null && ! "$1" -c "import $package" 2>/dev/null; then
            "$1" -m pip uninstall -q -y "$package" >&2 || return 1
        fi
    done
}

_longshort_base_python() {
    local name
    for name in python3.11 python3.12 python3.10 python3 python; do
        # Run it: a version manager's stand-in exists for versions that are not installed.
        if "$name" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 13))' 2>/dev/null; then
            command -v "$name"
            return
        fi
    done
    echo "setup: Python 3.10, 3.11 or 3.12 is needed, and none is on the PATH (python3 is: $(python3 --version 2>&1));" \
        "install one, or activate an environment with verl $LONGSHORT_VERL" >&2
    return 1
}
