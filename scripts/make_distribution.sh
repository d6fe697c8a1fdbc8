#!/usr/bin/env bash
# Builds what a release consists of from the last commit, tries it, and leaves it in dist/: wheel, sdist, data wheels of the
# models in use by default, lists of all that is installed with the wheel, alone and with the extra `tensorflow` (SBOM,
# CycloneDX), checksums. The same commit gives the same bytes.
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

pip install -qq --no-deps --require-hashes --requirement requirements/dist.txt
say "building $commit"
quietly "$bin/python" -m build --no-isolation --outdir "$made" .
quietly "$bin/twine" check --strict "$made"/*
wheel=$(basename "$made"/*.whl)
name=${wheel%-py3-none-any.whl}

environment() { # NAME LOCK: the wheel in an environment of its own, with what requirements/LOCK.txt names
    "$bin/python" -m venv --without-pip "$work/$1" # pip is none of our dependencies
    pip --python "$work/$1/bin/python" install -qq --no-deps --require-hashes --requirement "requirements/$2.txt"
    pip --python "$work/$1/bin/python" install -qq --no-deps "$made/$wheel"
}
say "installing $wheel, alone and with the extra tensorflow (the first time takes some minutes: TensorFlow is large)"
environment installed wheel
environment complete tensorflow

# cyclonedx-py describes Autotag by its pyproject.toml, and does not ask the build backend for a dynamic version.
sed "s/^dynamic = \[\"version\"\].*/version = \"${name#*-}\"/" pyproject.toml >"$work/pyproject.toml"
list() { # NAME FILE: what is in an environment
    "$bin/cyclonedx-py" environment --pyproject "$work/pyproject.toml" --mc-type application --output-reproducible \
        --output-file "$made/$2" "$work/$1/bin/python"
}
list installed "$name.cdx.json"
list complete "$name-tensorflow.cdx.json"

# In a cache of their own: what lies in the developer's may be of other code. Weights are pinned, and fetched once.
cache=${AUTOTAG_CACHE_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/autotag}
mkdir -p "$cache/weights" "$work/cache"
ln -s "$(cd "$cache/weights" && pwd)" "$work/cache/weights"
data_wheel() { # MODEL
    local built
    built=$(AUTOTAG_CACHE_DIR=$work/cache "$work/complete/bin/autotag" model build --json "$1") || return
    built=$("$bin/python" -c 'import json, sys; print(json.loads(sys.argv[1])["directory"])' "$built") || return
    PYTHONPATH=$source "$bin/python" scripts/make_model_wheels.py "$made" "$built" >&2
}
say "building the models of the data wheels"
data_wheel efficientnet-lite2 || fail "no release without its model"
data_wheel nanodet || say "there is no data wheel of NanoDet: its weights could not be had, or not be converted"
quietly "$bin/twine" check --strict "$made"/autotag_model_*.whl
pip --python "$work/installed/bin/python" install -qq --no-deps "$made"/autotag_model_efficientnet_lite2-*.whl

say "looking for known vulnerabilities"
"$bin/python" scripts/check_advisories.py ${ADVISORIES:+--$ADVISORIES} requirements/extras.txt >&2 || fail "no release with these"

say "trying the installed wheel"
AUTOTAG_TEST_DIST=$made AUTOTAG_TEST_INSTALLED=$work/installed AUTOTAG_TEST_COMPLETE=$work/complete \
    "$bin/python" -m pytest -q tests/smoke >&2

(cd "$made" && sha256sum -- * >"$work/SHA256SUMS" && mv "$work/SHA256SUMS" .)
cp -r "$made" "$checkout/dist"
say "done: $commit, in dist/"
(cd "$made" && du --bytes -- *) | awk '{ printf "  %9d bytes  %s\n", $1, $2 }' >&2
say "next: RELEASING.md, from \"Tag\" on"
