#!/usr/bin/env bash
# Builds what a release consists of from the last commit, tries it, and leaves it in dist/: wheel, sdist, a list of all
# that is installed with the wheel (SBOM, CycloneDX), checksums. The same commit gives the same bytes.
#   make_distribution.sh VENV    a virtual environment with the development tools
set -euo pipefail
cd "$(dirname "$0")/.."
checkout=$PWD
bin=$(cd "$1/bin" && pwd)
umask 022

say() { printf 'dist: %s\n' "$@" >&2; }
fail() { say "$@" && exit 1; }
pip() { "$bin/python" -m pip --disable-pip-version-check --no-input "$@"; }
quietly() { # shows what a program prints only when it fails
    local printed
    printed=$("$@" 2>&1) || fail "$(basename "$1") failed:" "$printed"
}

commit=$(git rev-parse --short HEAD) || fail "only a commit can be built"
[ -z "$(git status --porcelain)" ] || say "there are changes that are not committed: they will not be part of it"
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct) # what every file in wheel and sdist is dated with
export SOURCE_DATE_EPOCH

rm -rf dist # and it comes back only when everything has passed
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
source=$work/source made=$work/dist
mkdir "$source" "$made"
# Not from the checkout itself: what is not tracked there, a password in deploy/secrets for one, would be in the sdist.
git archive HEAD | tar -x -C "$source"
cd "$source"

pip install -qq --group dist --constraint constraints.txt
say "building $commit"
quietly "$bin/python" -m build --no-isolation --outdir "$made" .
quietly "$bin/twine" check --strict "$made"/*
wheel=$(basename "$made"/*.whl)
name=${wheel%-py3-none-any.whl}

say "installing $wheel into an environment of its own (the first time takes some minutes: TensorFlow is large)"
"$bin/python" -m venv --without-pip "$work/installed" # pip is none of our dependencies
pip --python "$work/installed/bin/python" install -qq --constraint constraints.txt "$made/$wheel"

# cyclonedx-py describes Autotag by its pyproject.toml, and does not ask the build backend for a dynamic version.
sed "s/^dynamic = \[\"version\"\].*/version = \"${name#*-}\"/" pyproject.toml >"$work/pyproject.toml"
"$bin/cyclonedx-py" environment --pyproject "$work/pyproject.toml" --mc-type application --output-reproducible \
    --output-file "$made/$name.cdx.json" "$work/installed/bin/python"

say "trying the installed wheel"
AUTOTAG_TEST_DIST=$made AUTOTAG_TEST_INSTALLED=$work/installed "$bin/python" -m pytest -q tests/smoke >&2

(cd "$made" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
cp -r "$made" "$checkout/dist"
say "done: $commit, in dist/"
(cd "$made" && du --bytes -- *) | awk '{ printf "  %9d bytes  %s\n", $1, $2 }' >&2
say "next: RELEASING.md, from \"Tag\" on"
