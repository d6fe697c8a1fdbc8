#!/bin/sh
# Installs the browser that tests of the status page are driven in, and a typeface for its screenshots. Debian and its
# kin; needs root. Does nothing where both are there already.
set -eu

if command -v chromium >/dev/null && fc-list 2>/dev/null | grep -q "Inter"; then
    exit 0
fi
if ! command -v apt-get >/dev/null; then
    echo "install_chromium.sh: there is no apt-get here; install a Chromium as \`chromium\` by hand" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends chromium fonts-inter fontconfig >/dev/null
chromium --version
