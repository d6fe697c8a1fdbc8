#!/usr/bin/env bash
# Writes what is installed, at exact versions and with the SHA-256 of every file that may be installed, for all Pythons and
# platforms: constraints.txt for development, and in requirements/ what the wheel needs: alone, to build models, in the
# image, with all extras; and what `make dist`, `make docs` and `make fuzz` need. The versions are the newest that pyproject.toml allows.
#   write_constraints.sh PYTHON
set -euo pipefail
cd "$(dirname "$0")/.."
directory=$(mktemp -d)
trap 'rm -rf "$directory"' EXIT

"$1" -m venv "$directory/venv"
pip() { "$directory/venv/bin/python" -m pip --disable-pip-version-check --no-input "$@"; }
pip install -qq uv
# uv does not read pip's settings.
index=${PIP_INDEX_URL:-$(pip config get global.index-url 2>/dev/null || true)}
[ -z "$index" ] || export UV_DEFAULT_INDEX=$index

mkdir "$directory/requirements"
lock() { # FILE WHAT OPTIONS...
    local file=$1 what=$2
    shift 2
    {
        echo "# What $what needs. Written by \`make lock\`; do not edit."
        "$directory/venv/bin/uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes \
            --no-header --no-annotate "$@"
    } >"$directory/$file"
}
lock constraints.txt "development" pyproject.toml --all-extras --group dev
same=(--constraint "$directory/constraints.txt")
lock requirements/wheel.txt "the wheel" pyproject.toml "${same[@]}"
lock requirements/tensorflow.txt "the wheel with the extra \`tensorflow\`" pyproject.toml --extra tensorflow "${same[@]}"
lock requirements/image.txt "the image" pyproject.toml --extra tracing --extra redis --extra heif "${same[@]}"
lock requirements/extras.txt "the wheel with all extras" pyproject.toml --all-extras "${same[@]}"
lock requirements/dist.txt "\`make dist\`" --group pyproject.toml:dist "${same[@]}"
lock requirements/docs.txt "\`make docs\`" --group pyproject.toml:docs "${same[@]}"
lock requirements/fuzz.txt "\`make fuzz\`" --group pyproject.toml:fuzz "${same[@]}"
mv "$directory/constraints.txt" .
mv "$directory"/requirements/*.txt requirements/
echo "wrote constraints.txt and requirements/: $(grep -c == constraints.txt) packages for development"
