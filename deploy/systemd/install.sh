#!/bin/sh
# Autotag as a systemd service, with versions side by side: the one in use is what /opt/autotag/current leads to. As root:
#   install.sh [SOURCE [DATA_WHEEL…]]   install a version beside those that are there, switch to it, restart what runs
#   install.sh --list                   the versions that are installed
#   install.sh --roll-back [VERSION]    switch back to the version that was in use before, or to the one named
#   install.sh --uninstall [--purge]    remove the program; with --purge settings, secrets, counters and models too
#
# SOURCE: a checkout or a wheel; default: the checkout this file is in.
# DATA_WHEEL: of a model, as `make dist` makes them. With any, TensorFlow is not installed and nothing is built; without,
# it is (1.9 GB), and builds the models.
# A version that refuses the settings, or does not get ready, is not left in use. The three newest are kept.
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
project=$(CDPATH='' cd -- "$here/../.." && pwd)
home=/opt/autotag
versions=$home/versions
unit=/etc/systemd/system/autotag.service
unit_connect=/etc/systemd/system/autotag-connect.service
program=/usr/local/bin/autotag
kept=3

say() { echo "install.sh: $*"; }
fail() { echo "install.sh: $*" >&2; exit 1; }
usage() { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; exit 2; }
with_systemd() { [ -d /run/systemd/system ]; }
in_use() { basename "$(readlink "$home/current" 2>/dev/null)" 2>/dev/null || true; }
before() { basename "$(readlink "$home/previous" 2>/dev/null)" 2>/dev/null || true; }
is_whole() { [ -n "$1" ] && [ -e "$versions/$1/.complete" ]; }
link() { ln -sfn "versions/$1" "$home/$2.new" && mv -T "$home/$2.new" "$home/$2"; }
by_age() { # the newest first
    for each in "$versions"/*/.complete; do [ ! -e "$each" ] || stat --format '%Y %n' "$each"; done |
        sort -rn | while read -r _ each; do basename "$(dirname "$each")"; done
}

wheel_of() { # SOURCE DIRECTORY: the wheel, built into DIRECTORY if SOURCE is a checkout
    case $1 in
    *.whl) echo "$1" ;;
    *) # hatchling, which builds it, is none of what the program needs
        "$python" -m venv "$2/venv"
        "$2/venv/bin/pip" install --quiet --no-deps --require-hashes --requirement "$project/requirements/dist.txt"
        SOURCE_DATE_EPOCH=315532800 "$2/venv/bin/python" -m build --no-isolation --wheel --outdir "$2" "$1" \
            >"$2/log" || { cat "$2/log" >&2; exit 1; }
        echo "$2"/*.whl
        ;;
    esac
}

lay_down() { # VERSION REQUIREMENTS WHEEL…: a version in a directory of its own, marked when it is whole
    directory=$versions/$1 needed=$2
    shift 2
    rm -rf "$directory"
    install -d -m 0755 "$versions"
    "$python" -m venv "$directory"
    "$directory/bin/pip" install --quiet --no-deps --require-hashes --requirement "$project/requirements/$needed.txt"
    "$directory/bin/pip" install --quiet --no-deps "$@"
    install -m 0644 "$here/autotag.service" "$here/autotag-connect.service" "$directory"
    "$directory/bin/autotag" schema settings >"$directory/autotag.schema.json"
    touch "$directory/.complete"
}

accepts_the_settings() { # VERSION: as the service will read them; secrets are copied to where only root reads, for a moment
    secrets=$(mktemp -d /run/autotag-check.XXXXXX)
    for each in /etc/credstore/autotag.*; do
        [ ! -f "$each" ] || cp "$each" "$secrets/${each#/etc/credstore/autotag.}"
    done
    accepted=0
    (cd / && "$versions/$1/bin/autotag" --config /etc/autotag/autotag.toml --env-file /etc/autotag/autotag.env \
        --secrets-dir "$secrets" run --check-settings) || accepted=$?
    rm -rf "$secrets"
    return "$accepted"
}

switch_to() { # VERSION; a service that runs is restarted, and has to get ready
    old=$(in_use)
    link "$1" current || return 1 # the caller asks whether it went well, so `set -e` does not hold here
    install -D -m 0644 "$versions/$1/autotag.service" "$unit" || return 1
    # The connector's is there as well; it is started once there is a connection: systemctl enable --now autotag-connect
    install -D -m 0644 "$versions/$1/autotag-connect.service" "$unit_connect" || return 1
    install -m 0644 "$versions/$1/autotag.schema.json" /etc/autotag/autotag.schema.json || return 1
    ln -sf "$home/current/bin/autotag" "$program" || return 1
    ready=0
    if with_systemd; then
        systemctl daemon-reload
        if systemctl is-active --quiet autotag || [ -n "${restart:-}" ]; then
            say "restarting the service"
            systemctl restart autotag || ready=$?
        fi
    fi
    [ "$ready" = 0 ] || return "$ready"
    [ -z "$old" ] || [ "$old" = "$1" ] || link "$old" previous
}

use() { # VERSION: switch to it, and back if the service does not get ready under it
    was=$(in_use)
    if switch_to "$1"; then return; fi
    if ! is_whole "$was" || [ "$was" = "$1" ]; then fail "the service does not get ready: journalctl -u autotag"; fi
    say "the service does not get ready with $1; going back to $was" >&2
    restart=yes # it is not active now
    was_before=$(before)
    switch_to "$was" || fail "nor does it with $was: journalctl -u autotag"
    if [ -n "$was_before" ]; then link "$was_before" previous; else rm -f "$home/previous"; fi
    fail "$was is in use as before; $1 is installed. Why it did not start: journalctl -u autotag"
}

remove_old() {
    number=0
    for each in $(by_age); do
        number=$((number + 1))
        [ "$number" -gt "$kept" ] || continue
        if [ "$each" = "$(in_use)" ] || [ "$each" = "$(before)" ]; then continue; fi
        say "removing $each"
        rm -rf "${versions:?}/$each"
    done
    # An installation of before there were versions was a virtual environment in $home itself.
    [ ! -e "$home/pyvenv.cfg" ] || (cd "$home" && rm -rf bin include lib lib64 share pyvenv.cfg)
}

install_version() {
    source=${1:-$project}
    [ $# = 0 ] || shift # what is left are data wheels
    python=${PYTHON:-python3}
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "$python is older than Python 3.11; set PYTHON to a newer one"
    if [ $# = 0 ]; then needed=tensorflow; else needed=wheel; fi

    built=$(mktemp -d)
    trap 'rm -rf "$built"' EXIT
    wheel=$(wheel_of "$source" "$built")
    number=$(basename "$wheel" | cut -d - -f 2)
    # Two builds of one number are two versions, and so is the same program with other models.
    version=$number-$(cat "$wheel" "$@" "$project/requirements/$needed.txt" "$here"/autotag*.service | sha256sum | cut -c 1-8)
    if is_whole "$version"; then
        say "$version is installed already"
    else
        say "program in $versions/$version"
        lay_down "$version" "$needed" "$wheel" "$@"
    fi

    say "user, directories, settings"
    install -D -m 0644 "$here/autotag.sysusers" /usr/lib/sysusers.d/autotag.conf
    systemd-sysusers /usr/lib/sysusers.d/autotag.conf
    install -d -m 0700 /etc/credstore
    install -d -m 0750 -o root -g autotag /etc/autotag
    install -d -m 0750 -o autotag -g autotag /var/cache/autotag
    for file in autotag.toml autotag.env; do
        [ -e "/etc/autotag/$file" ] || install -m 0640 -o root -g autotag "$here/$file" /etc/autotag/
    done

    say "models (once)"
    runuser -u autotag -- env HOME=/var/cache/autotag AUTOTAG_CACHE_DIR=/var/cache/autotag \
        "$versions/$version/bin/autotag" model build
    accepts_the_settings "$version" ||
        fail "$version refuses the settings above; $(in_use | sed 's/^$/nothing/') stays in use. Mend them, and run this again"

    first=$([ -n "$(in_use)" ] || echo yes)
    use "$version"
    remove_old
    say "done: $version is in use"
    [ -z "$first" ] || cat <<'END'
Next:
  1. /etc/autotag/autotag.toml: the broker's address, and where images may come from
  2. the broker's password:  install -m 0600 /dev/stdin /etc/credstore/autotag.amqp__password
  3. systemctl enable --now autotag && systemctl status autotag
END
}

list_versions() {
    for each in $(by_age); do
        case $each in
        "$(in_use)") echo "$each  in use" ;;
        "$(before)") echo "$each  in use before" ;;
        *) echo "$each" ;;
        esac
    done
}

roll_back() {
    version=${1:-$(before)}
    [ -n "$version" ] || fail "no other version was in use before; those that are installed: $(by_age | tr '\n' ' ')"
    is_whole "$version" || fail "$version is not installed; these are: $(by_age | tr '\n' ' ')"
    [ "$version" != "$(in_use)" ] || fail "$version is in use already"
    accepts_the_settings "$version" || fail "$version refuses the settings above; $(in_use) stays in use"
    use "$version"
    say "done: $version is in use"
}

uninstall() {
    if with_systemd; then systemctl disable --quiet --now autotag autotag-connect 2>/dev/null || true; fi
    rm -f "$unit" "$unit_connect" /usr/lib/sysusers.d/autotag.conf /etc/autotag/autotag.schema.json
    case $(readlink "$program" 2>/dev/null) in "$home"/*) rm -f "$program" ;; esac
    rm -rf "$home"
    if [ "${1:-}" = --purge ]; then
        rm -rf /etc/autotag /etc/systemd/system/autotag.service.d /var/lib/autotag /var/cache/autotag
        rm -f /etc/credstore/autotag.* /etc/credstore.encrypted/autotag.*
        if getent passwd autotag >/dev/null; then userdel autotag; fi
        say "removed, with settings, secrets, counters and models. What RabbitMQ holds is as it was."
    else
        say "removed. Still there: /etc/autotag, /etc/credstore/autotag.*, /var/lib/autotag, /var/cache/autotag, the user" \
            "autotag, and what RabbitMQ holds. --uninstall --purge removes those on this machine."
    fi
    if with_systemd; then systemctl daemon-reload; fi
}

[ "$(id -u)" = 0 ] || { echo "install.sh: run it as root" >&2; exit 2; }
exec 9>/run/autotag-install.lock
flock --nonblock 9 || fail "another install.sh is running"
case ${1:-} in
--list) [ $# = 1 ] || usage; list_versions ;;
--roll-back) [ $# -le 2 ] || usage; shift; roll_back "$@" ;;
--uninstall) [ $# = 1 ] || [ "$2" = --purge ] || usage; shift; uninstall "$@" ;;
-*) usage ;;
*) install_version "$@" ;;
esac
