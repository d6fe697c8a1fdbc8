#!/usr/bin/env bash
# Writes constraints.txt: what pip chooses today, in an empty environment, for Autotag and its development tools.
#   write_constraints.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")/.."
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

"$1" -m venv "$directory/venv"
pip() { "$directory/venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }
pip install -qq --upgrade "pip>=25.1"
pip install -qq --editable . --group dev --group dist
{
    echo "# The exact versions that setup, tests and CI use. Written by \`make lock\`; do not edit."
    pip freeze --exclude-editable
} >"$directory/constraints.txt"
mv "$directory/constraints.txt" constraints.txt
echo "wrote constraints.txt: $(grep -c == constraints.txt) packages"
