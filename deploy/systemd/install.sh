#!/bin/sh
# Installs Autotag as a systemd service, or brings an installation up to date: run again with the newer source.
# As root:  deploy/systemd/install.sh [SOURCE [DATA_WHEEL…]]
#   SOURCE: a checkout or a wheel; default: the checkout this file is in.
#   DATA_WHEEL: of a model, as `make dist` makes them. With any, TensorFlow is not installed and nothing is built; without,
#   it is (1.9 GB), and builds the models.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
project=$(CDPATH='' cd -- "$here/../.." && pwd)
source=${1:-$project}
[ $# = 0 ] || shift # what is left are data wheels
home=/opt/autotag

[ "$(id -u)" = 0 ] || { echo "install.sh: run it as root" >&2; exit 2; }
python=${PYTHON:-python3}
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "install.sh: $python is older than Python 3.11; set PYTHON to a newer one" >&2
    exit 2
}

echo "install.sh: program in $home"
"$python" -m venv "$home"
if [ $# = 0 ]; then needed=tensorflow; else needed=wheel; fi
"$home/bin/pip" install --quiet --upgrade --no-deps --require-hashes --requirement "$project/requirements/$needed.txt"
case $source in
*.whl) wheel=$source ;;
*) # hatchling, which builds it, is none of what the program needs
    built=$(mktemp -d)
    trap 'rm -rf "$built"' EXIT
    "$python" -m venv "$built/venv"
    "$built/venv/bin/pip" install --quiet --no-deps --require-hashes --requirement "$project/requirements/dist.txt"
    "$built/venv/bin/python" -m build --no-isolation --wheel --outdir "$built" "$source" >"$built/log" ||
        { cat "$built/log" >&2; exit 1; }
    wheel=$(echo "$built"/*.whl)
    ;;
esac
"$home/bin/pip" install --quiet --no-deps --force-reinstall "$wheel" "$@"
ln -sf "$home/bin/autotag" /usr/local/bin/autotag

echo "install.sh: user, directories, unit"
install -D -m 0644 "$here/autotag.sysusers" /usr/lib/sysusers.d/autotag.conf
systemd-sysusers /usr/lib/sysusers.d/autotag.conf
install -d -m 0700 /etc/credstore
install -d -m 0750 -o root -g autotag /etc/autotag
install -d -m 0750 -o autotag -g autotag /var/cache/autotag
for file in autotag.toml autotag.env; do
    [ -e "/etc/autotag/$file" ] || install -m 0640 -o root -g autotag "$here/$file" /etc/autotag/
done
install -D -m 0644 "$here/autotag.service" /etc/systemd/system/autotag.service

echo "install.sh: models (once)"
runuser -u autotag -- env HOME=/var/cache/autotag AUTOTAG_CACHE_DIR=/var/cache/autotag \
    "$home/bin/autotag" model build

if [ -d /run/systemd/system ]; then systemctl daemon-reload; fi
cat <<'END'
install.sh: done. Next:
  1. /etc/autotag/autotag.toml: the broker's address, and where images may come from
  2. the broker's password:  install -m 0600 /dev/stdin /etc/credstore/autotag.amqp__password
  3. systemctl enable --now autotag && systemctl status autotag
END
