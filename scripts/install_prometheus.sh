#!/usr/bin/env bash
# Sees to it that `promtool` and `prometheus` are there, for the tests of metrics, alerts and dashboard. On Debian and
# Ubuntu, as root, installs the distribution's package; its service is not started.
set -euo pipefail

command -v promtool >/dev/null && command -v prometheus >/dev/null && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "prometheus: not installed. Run: sudo apt-get install --no-install-recommends prometheus" >&2
    exit 1
fi

policy=/usr/sbin/policy-rc.d # invoke-rc.d asks it before it starts a service
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
echo "prometheus: installing the package prometheus (once)" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o DPkg::Lock::Timeout=300 update
apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends prometheus >/dev/null
