#!/usr/bin/env bash
# Makes a virtual environment and installs Autotag, editable, with its development tools as constraints.txt has them.
#   make_environment.sh VENV PYTHON
set -euo pipefail
cd "$(dirname "$0")/.."
venv=$1 python=$2

fail() {
    printf 'setup: %s\n' "$@" >&2
    exit 1
}

command -v "$python" >/dev/null ||
    fail "there is no $python here. Install Python 3.11 or newer, or name one: make setup PYTHON=/path/to/python"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    fail "$("$python" --version) is too old: Autotag needs 3.11 or newer. Name one: make setup PYTHON=python3.11"

if [ ! -x "$venv/bin/python" ]; then
    said=$("$python" -m venv "$venv" 2>&1) || {
        rm -rf "$venv"
        case $said in
        *ensurepip*) fail "$python cannot make virtual environments. On Debian and Ubuntu: apt-get install python3-venv" ;;
        *) fail "making $venv failed:" "$said" ;;
        esac
    }
fi

pip() { "$venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }
echo "setup: installing into $venv (the first time takes some minutes: TensorFlow is large)" >&2
pip install -qq --no-deps --require-hashes --requirement constraints.txt
pip install -qq --no-deps --no-build-isolation --editable .
