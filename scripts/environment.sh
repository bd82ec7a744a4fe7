# Sourced by the other scripts: which Python, and whether it has what requirements.txt asks for.
# shellcheck shell=bash

root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"

# An environment that has all packages but this one is good enough: the scripts find hmhi here.
export PYTHONPATH="$root${PYTHONPATH:+:$PYTHONPATH}"

# Prints the interpreter to use: $PYTHON, the active environment's, .venv's, or python3.
find_python() {
    if [[ -n "${PYTHON:-}" ]]; then
        echo "$PYTHON"
    elif [[ -z "${VIRTUAL_ENV:-}${CONDA_PREFIX:-}" && -x "$root/.venv/bin/python" ]]; then
        echo "$root/.venv/bin/python"
    else
        echo python3
    fi
}

# True when interpreter $1 has every package that the requirements file $2 names, in a version that it allows.
satisfies() {
    "$1" "$root/scripts/check_requirements.py" "$2" 2>/dev/null
}

# Sets $python to an interpreter that satisfies the requirements file $1, and makes .venv where none does.
# An active environment that satisfies it is used as it is; one that does not is left alone.
prepare_python() {
    python="$(find_python)"
    if satisfies "$python" "$1"; then
        return
    fi
    if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
        echo "error: Python 3.11 or newer is needed; name one with PYTHON=/path/to/python" >&2
        exit 2
    fi
    if [[ ! -x "$root/.venv/bin/python" ]]; then
        echo "making $root/.venv" >&2
        "$python" -m venv "$root/.venv" || {
            echo "error: cannot make .venv; on Debian and Ubuntu, install the package python3-venv" >&2
            exit 2
        }
    fi
    python="$root/.venv/bin/python"
    if ! satisfies "$python" "$1"; then
        echo "installing $1 into .venv (about 6 GB with CUDA; once)" >&2
        (cd "$root" && "$python" -m pip install --disable-pip-version-check -r "$1") >&2 || {
            echo "error: pip could not install $1; its message above says what is missing" >&2
            exit 2
        }
    fi
}
