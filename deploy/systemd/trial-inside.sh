#!/bin/bash
# What trial.sh has tried inside the container: each line of the output is a promise of the unit that held.
set -u

password=marker-of-a-secret
config=/etc/autotag/autotag.toml

end() {
    echo "trial: FAILED: $1"
    systemctl status --no-pager --full autotag
    journalctl --unit autotag --no-pager --output cat | tail -n 60
    exit 1
}
holds() { # holds "sentence" command…
    local sentence=$1
    shift
    "$@" >/tmp/output 2>&1 || { cat /tmp/output; end "$sentence"; }
    echo "ok: $sentence"
}
within() { # within SECONDS command…
    local seconds=$1 i
    shift
    for ((i = 0; i < seconds; i++)); do
        "$@" >/dev/null 2>&1 && return 0
        sleep 1
    done
    return 1
}
property() { systemctl show --property "$1" --value autotag; }
is() { [ "$(property "$1")" = "$2" ]; }
as_autotag() { systemd-run --quiet --wait --pipe --uid=autotag --property=LoadCredential=amqp__password:autotag.amqp__password "$@"; }
as_dms() { AUTOTAG_AMQP__URL=amqp://dms:dms@127.0.0.1 AUTOTAG_AMQP__DECLARE=false autotag "$@"; }
says_how_it_is() { [ -n "$(property StatusText)" ]; }
has_children() { [ "$(pgrep --uid autotag --count)" -ge 4 ]; }
nothing_left() { ! pgrep --uid autotag >/dev/null; }
confined() { grep -qE '^CapBnd:\s*0+$' "/proc/$1/status" && grep -qE '^Seccomp:\s*2$' "/proc/$1/status" && grep -qE '^NoNewPrivs:\s*1$' "/proc/$1/status"; }
all_confined() { local pid; for pid in $(pgrep --uid autotag); do confined "$pid" || return 1; done; }
no_secret_in_environment() { local pid; for pid in $(pgrep --uid autotag); do ! grep -q "$password" "/proc/$pid/environ" || return 1; done; }

holds "RabbitMQ runs, with rabbitmq.conf" within 60 rabbitmqctl --quiet status
rabbitmqctl --quiet delete_user autotag >/dev/null 2>&1
rabbitmqctl --quiet delete_vhost / && rabbitmqctl --quiet add_vhost /
rabbitmqctl --quiet add_user autotag "$password"
rabbitmqctl --quiet set_permissions autotag '^autotag\.' '^autotag\.' '^autotag\.'
# The DMS's user: publishes events; `publish --wait` listens to results on a queue of its own.
rabbitmqctl --quiet delete_user dms >/dev/null 2>&1
rabbitmqctl --quiet add_user dms dms
rabbitmqctl --quiet set_permissions dms '^amq\.gen' '^(amq\.gen|autotag\.images$)' '^(amq\.gen|autotag\.results$)'
cp /root/autotag/deploy/rabbitmq/*.json /srv
holds "the broker takes definitions.json" rabbitmqctl --quiet import_definitions /srv/definitions.json
holds "the broker takes policies.json" rabbitmqctl --quiet import_definitions /srv/policies.json

printf %s "$password" | install -m 0600 /dev/stdin /etc/credstore/autotag.amqp__password
install -d /srv/images
/opt/autotag/current/bin/python -c 'from PIL import Image; Image.effect_mandelbrot((600, 400), (-2, -1, 1, 1), 100).save("/srv/images/mandelbrot.png")'
sed -i 's#^path_roots = .*#path_roots = ["/srv/images"]#' "$config"

holds "systemctl start comes back when the service says that it is ready" systemctl start autotag
holds "the service says how it is: STATUS=" within 10 says_how_it_is
echo "    $(property StatusText)"
holds "three children beside the parent" within 30 has_children
holds "no capability, no new privileges, system calls filtered, in every process" all_confined
holds "no secret in any environment" no_secret_in_environment
holds "the broker's rights and the declared queues are as they should be" as_autotag autotag check
holds "events by content" as_dms publish --wait --timeout 60 /srv/images/*
holds "events by path" as_dms publish --by path --wait --timeout 60 /srv/images/*

pid=$(property MainPID)
holds "a reload keeps the process" systemctl reload autotag
cp "$config" /tmp/good
echo 'nonsense = 1' >>"$config"
systemctl reload autotag
sleep 2
holds "a reload with wrong settings leaves the service running" is MainPID "$pid"
cat /tmp/good >"$config"

kill -STOP "$pid"
holds "a frozen event loop is noticed by the watchdog and the service restarted" within 90 is NRestarts 1
holds "and is ready again" within 120 is ActiveState active

drop_in=/etc/systemd/system/autotag.service.d/tflite-only.conf
install -D -m 0644 /root/autotag/deploy/systemd/autotag.service.d/tflite-only.conf "$drop_in"
systemctl daemon-reload
holds "the service starts with tflite-only.conf" systemctl restart autotag
holds "and tags" as_dms publish --wait --timeout 60 /srv/images/mandelbrot.png
rm "$drop_in"
systemctl daemon-reload

installer=/root/autotag/deploy/systemd/install.sh
named() { "$installer" --list | sed -n "s/^\([^ ]*$1[^ ]*\).*/\1/p" | head -n 1; }
in_use() { "$installer" --list | sed -n 's/  in use$//p'; }
of_version() { tr '\0' ' ' <"/proc/$(property MainPID)/cmdline" | grep -qF "/opt/autotag/versions/$1/bin/"; }
refuses() { ! "$@"; }
first=$(in_use) next=$(named '+next') broken=$(named '+broken')
"$installer" --list | sed 's/^/    /'
holds "three versions lie side by side, and the one that was installed last runs" of_version "$first"
holds "install.sh --roll-back: the version before runs" "$installer" --roll-back
holds "it is the service that has changed" of_version "$next"
holds "and it tags" as_dms publish --wait --timeout 60 /srv/images/mandelbrot.png
holds "a version that does not get ready is refused" refuses "$installer" --roll-back "$broken"
grep -q "going back to $next" /tmp/output || end "it says which version it goes back to"
holds "and the version that ran runs again" of_version "$next"
holds "and is ready" is ActiveState active
echo 'nonsense = 1' >>"$config"
pid=$(property MainPID)
holds "a version that refuses the settings is not switched to" refuses "$installer" --roll-back "$first"
holds "and the service goes on" is MainPID "$pid"
cat /tmp/good >"$config"
holds "install.sh --roll-back VERSION" "$installer" --roll-back "$first"
holds "the version that is named runs" of_version "$first"
holds "a version that nobody has installed is refused" refuses "$installer" --roll-back 9.9.9

holds "systemctl stop" systemctl stop autotag
holds "ends in order" is Result success
holds "and leaves no process" nothing_left

echo 'nonsense = 1' >>"$config"
systemctl start autotag 2>/dev/null
sleep 10
holds "wrong settings are not tried again" is NRestarts 0
cat /tmp/good >"$config"

systemctl reset-failed autotag
holds "and with right ones it starts again" systemctl start autotag
holds "install.sh --uninstall" "$installer" --uninstall
holds "leaves no process" nothing_left
holds "no unit" refuses systemctl cat autotag
holds "no program" refuses test -e /opt/autotag -o -L /usr/local/bin/autotag
holds "and settings, secrets and counters as they were" test -e "$config" -a -e /etc/credstore/autotag.amqp__password -a -d /var/lib/autotag
holds "install.sh --uninstall --purge" "$installer" --uninstall --purge
holds "leaves nothing" refuses test -e /etc/autotag -o -e /etc/credstore/autotag.amqp__password -o -e /var/lib/autotag -o -e /var/cache/autotag
holds "and no user" refuses getent passwd autotag
echo "trial: passed"
