#!/bin/sh
# Runs the unit for real: a Debian with systemd and RabbitMQ in a container of systemd's own (systemd-nspawn, loopback
# network), Autotag put there by install.sh, and every promise of the unit tried from inside (trial-inside.sh).
#   deploy/systemd/trial.sh DIRECTORY [DATA_WHEEL…]   as root, on Debian; DIRECTORY (3 GB; with data wheels 1 GB) is kept,
# so a second run is faster
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
project=$(CDPATH='' cd -- "$here/../.." && pwd)
[ $# -ge 1 ] || { sed -n '2,5s/^# *//p' "$0" >&2; exit 2; }
mkdir -p "$1"
root=$(CDPATH='' cd -- "$1" && pwd)
shift

for program in debootstrap:debootstrap systemd-nspawn:systemd-container; do
    command -v "${program%:*}" >/dev/null || apt-get -qq install --yes --no-install-recommends "${program#*:}"
done

if [ ! -e "$root/root/made" ]; then
    mirror=$(sed -n 's/^URIs: *//p; s/^deb \(\[.*\] \)\{0,1\}\(http[^ ]*\) .*/\2/p' /etc/apt/sources.list.d/*.sources \
        /etc/apt/sources.list 2>/dev/null | head -n 1)
    debootstrap --variant=minbase --include=systemd,systemd-sysv,dbus,procps,python3,python3-venv,ca-certificates,rabbitmq-server \
        "${SUITE:-bookworm}" "$root" "$mirror"
    touch "$root/root/made"
fi

echo "trial.sh: installing Autotag"
rm -rf "$root/root/autotag" && mkdir "$root/root/autotag"
for each in pyproject.toml requirements README.md LICENSE LICENSES worker deploy docs; do
    cp -r "$project/$each" "$root/root/autotag/"
done
rm -rf "$root/root/wheels" && mkdir "$root/root/wheels"
[ $# = 0 ] || cp "$@" "$root/root/wheels/"
# Two later versions, of which the second does not get ready: what is tried of versions side by side.
version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$project/worker/__init__.py")
for each in next broken; do
    rm -rf "$root/root/$each" && cp -r "$root/root/autotag" "$root/root/$each"
    sed -i "s/^__version__ = .*/__version__ = \"$version+$each\"/" "$root/root/$each/worker/__init__.py"
done
sed -i 's/^    logs\.configure(.*/    raise SystemExit("does not start, for the trial")/' "$root/root/broken/worker/cli/run.py"
# The container reaches package sources as this machine does, while Autotag is installed.
for each in /etc/resolv.conf /etc/hosts /etc/pip.conf /root/.config/pip/pip.conf /etc/ssl/certs/ca-certificates.crt; do
    if [ -e "$each" ]; then
        mkdir -p "$root$(dirname "$each")"
        rm -f "$root$each"
        cp -L "$each" "$root$each"
    fi
done
mount -t proc proc "$root/proc"
trap 'umount "$root/proc"' EXIT
set --
for each in "$root"/root/wheels/*.whl; do [ ! -e "$each" ] || set -- "$@" "${each#"$root"}"; done
[ ! -e "$root/opt/autotag" ] || chroot "$root" /root/autotag/deploy/systemd/install.sh --uninstall
for each in broken next autotag; do
    chroot "$root" "/root/$each/deploy/systemd/install.sh" "/root/$each" "$@"
done
umount "$root/proc"
trap - EXIT

install -D -m 0644 "$project/deploy/rabbitmq/rabbitmq.conf" "$root/etc/rabbitmq/conf.d/90-autotag.conf"
install -m 0755 "$here/trial-inside.sh" "$root/root/trial-inside.sh"
cat >"$root/etc/systemd/system/trial.service" <<'END'
[Unit]
After=rabbitmq-server.service
Wants=rabbitmq-server.service
[Service]
Type=exec
ExecStart=/root/trial-inside.sh
StandardOutput=file:/root/trial.log
StandardError=inherit
ExecStopPost=systemctl poweroff --no-block
END
mkdir -p "$root/etc/systemd/system/multi-user.target.wants"
ln -sf ../trial.service "$root/etc/systemd/system/multi-user.target.wants/trial.service"

rm -f "$root/root/trial.log"
SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 timeout 600 systemd-nspawn --quiet --boot --directory="$root" --machine=autotag-trial \
    --register=no --keep-unit --link-journal=no --private-network </dev/null >"$root/root/boot.log" 2>&1 || true
cat "$root/root/trial.log"
tail -n 1 "$root/root/trial.log" | grep -q '^trial: passed$'
