#!/bin/sh
# Checks everything in deploy/ with the tools that will read it. Installs Debian's packages of them when they are missing
# and it is run as root; the checkers that are Python packages are in the `test` dependency group.
#   deploy/check.sh            PYTHON: the interpreter that has them, default .venv/bin/python
set -eu

project=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$project"
python=${PYTHON:-.venv/bin/python}

install_missing() {
    missing=
    command -v systemd-analyze >/dev/null || missing="$missing systemd"
    command -v promtool >/dev/null || missing="$missing prometheus"
    command -v shellcheck >/dev/null || missing="$missing shellcheck"
    [ -n "$missing" ] || return 0
    if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
        echo "deploy/check.sh: install these first:$missing" >&2
        exit 2
    fi
    # The packages are wanted for their checkers: no service of theirs is to start.
    policy=/usr/sbin/policy-rc.d
    if [ ! -e "$policy" ]; then
        printf '#!/bin/sh\nexit 101\n' >"$policy"
        chmod 0755 "$policy"
        trap 'rm -f "$policy"' EXIT
    fi
    export DEBIAN_FRONTEND=noninteractive
    apt-get -qq -o DPkg::Lock::Timeout=300 update
    # shellcheck disable=SC2086 # a list of names
    apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends $missing >/dev/null
}

install_missing
echo "deploy/check.sh: shell scripts"
find deploy -name '*.sh' -exec shellcheck {} +
echo "deploy/check.sh: Prometheus"
promtool check config deploy/prometheus/prometheus.yml
echo "deploy/check.sh: unit, Dockerfile, compose file, chart, definitions"
"$python" -m pytest -q tests/unit/test_deploy_*.py
