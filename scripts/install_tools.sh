#!/usr/bin/env bash
# Sees to it that the programs are there which tests and checks use besides Python packages and RabbitMQ: systemd-analyze,
# promtool and prometheus, shellcheck, chromium, redis-server, the decoders of libvips and ImageMagick, and what the examples
# of publishers are run with. On Debian and Ubuntu, as root, installs the distribution's packages; nothing of them is
# started. With names, only for those programs.
set -euo pipefail
PATH=$PATH:/usr/sbin # where nginx is, and only root looks

declare -A package_of=(
    [systemd-analyze]=systemd
    [promtool]=prometheus
    [prometheus]=prometheus
    [shellcheck]=shellcheck
    [chromium]="chromium fonts-inter"
    [redis-server]=redis-server
    [nginx]=nginx-light
    [vipsthumbnail]=libvips-tools
    [identify]=imagemagick
    [php]="php-cli php-amqplib"
    [jq]=jq
    [curl]=curl
)
missing=()
if [ $# = 0 ]; then
    set -- "${!package_of[@]}"
    # The example in Java is run where there is a JDK, the one in JavaScript where there is npm: too large to install for it.
    if command -v javac >/dev/null && [ ! -e /usr/share/java/amqp-client.jar ]; then
        missing+=("librabbitmq-client-java libjackson2-databind-java libslf4j-java")
    fi
fi
for program in "$@"; do
    command -v "$program" >/dev/null || missing+=("${package_of[$program]}")
done
[ ${#missing[@]} -gt 0 ] || exit 0
packages=$(printf '%s\n' "${missing[@]}" | sort -u | tr '\n' ' ')

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "tools: not installed. Run: sudo apt-get install --no-install-recommends $packages" >&2
    exit 1
fi
policy=/usr/sbin/policy-rc.d # invoke-rc.d asks it before it starts a service
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 0755 "$policy"
    trap 'rm -f "$policy"' EXIT
fi
echo "tools: installing $packages(once)" >&2
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -o DPkg::Lock::Timeout=300 update
# shellcheck disable=SC2086 # a list of names
apt-get -qq -o DPkg::Lock::Timeout=300 install --yes --no-install-recommends $packages >/dev/null
