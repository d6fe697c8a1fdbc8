"""A real Ceph RADOS Gateway (Debian: `radosgw`) above one monitor, one manager and one store in memory, on loopback.

Its push of notifications to RabbitMQ is its own, by librabbitmq.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlencode

import pytest
from ports import accepts_connections, free_ports

from tests.support.polling import until
from tests.support.s3_stores import KEYS, S3Store
from tests.systems.programs import apt_install

PACKAGES = ("radosgw", "ceph-mon", "ceph-osd", "ceph-mgr", "ceph-common")
_TOPIC = """<NotificationConfiguration xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><TopicConfiguration>
<Id>autotag</Id><Topic>{topic}</Topic>{events}
</TopicConfiguration></NotificationConfiguration>"""


class Ceph(S3Store):
    """What tests do with the gateway, as the owner of all buckets."""

    def notify(self, bucket: str, amqp_url: str, exchange: str, lane: str, events: list[str]) -> None:
        """Have the gateway publish a message to the exchange for each of the events; the topic is the routing key."""
        attributes = {
            "push-endpoint": amqp_url,
            "amqp-exchange": exchange,
            "amqp-ack-level": "broker",
            "persistent": "true",
            "verify-ssl": "false",
        }
        topic = {"Action": "CreateTopic", "Name": lane}
        for number, (key, value) in enumerate(attributes.items(), 1):
            topic |= {f"Attributes.entry.{number}.key": key, f"Attributes.entry.{number}.value": value}
        # It refuses passwords over plain HTTP: the header stands in for the proxy with TLS before it.
        answer = self.request("POST", "/", urlencode(topic).encode(), {"X-Forwarded-Proto": "https"})
        assert answer.status_code == 200, answer.text
        arn = answer.text.partition("<TopicArn>")[2].partition("</TopicArn>")[0]
        body = _TOPIC.format(topic=arn, events="".join(f"<Event>{event}</Event>" for event in events))
        answer = self.request("PUT", f"/{bucket}?notification=", body.encode())
        assert answer.status_code == 200, answer.text


def has_ceph() -> bool:
    """Whether its programs are installed."""
    return all(shutil.which(program) for program in ("radosgw", "ceph-mon", "ceph-osd", "ceph-mgr", "ceph"))


@contextmanager
def ceph(folder: Path) -> Iterator[Ceph]:
    """A running gateway with everything below it, made in `folder`. Skips the test where it is not installed."""
    if not has_ceph():
        apt_install(*PACKAGES)
    if not has_ceph():
        pytest.skip(f"Ceph is not installed: apt-get install {' '.join(PACKAGES)}")
    monitor, gateway, *others = free_ports(12)
    fsid, store = str(uuid.uuid4()), str(uuid.uuid4())
    settings = folder / "ceph.conf"
    ports = {"monitor": monitor, "first": min(others), "last": max(others), "port": gateway}
    settings.write_text(_SETTINGS.format(at=folder, fsid=fsid, **ports))
    environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin", "CEPH_CONF": str(settings), "HOME": str(folder)}
    with ExitStack() as processes, (folder / "log").open("wb") as log:

        def run(*command: str) -> None:
            subprocess.run(command, env=environment, cwd=folder, stdout=log, stderr=log, check=True, timeout=60)

        def start(*command: str) -> None:
            process = subprocess.Popen([*command, "-f"], env=environment, cwd=folder, stdout=log, stderr=log)
            processes.callback(process.wait, 20)
            processes.callback(process.kill)  # nothing of it is kept

        def answers(*command: str) -> bool:
            try:
                run("timeout", "10", *command)
            except subprocess.CalledProcessError:
                return False
            return True

        for name in ("monitor", "manager", "store", "gateway"):
            (folder / name).mkdir()
        _make_keys(folder, run)
        run("monmaptool", "--create", "--fsid", fsid, "--addv", "a", f"[v2:127.0.0.1:{monitor}/0]", "monmap")
        run("ceph-mon", "--mkfs", "-i", "a", "--monmap", "monmap", "--keyring", "monitor.keyring")
        start("ceph-mon", "-i", "a")
        until(lambda: answers("ceph", "-s"), f"Ceph's monitor answers; the log is {folder / 'log'}", within_s=60)
        start("ceph-mgr", "-i", "a")
        run("ceph", "osd", "new", store)
        run("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", store)
        start("ceph-osd", "-i", "0")
        start("radosgw", "-n", "client.rgw.a")
        server = Ceph(gateway)
        until(lambda: accepts_connections(gateway), f"the gateway listens; the log is {folder / 'log'}", within_s=120)
        keys = (f"--access-key={KEYS.access_key}", f"--secret-key={KEYS.secret_key}")
        run("radosgw-admin", "user", "create", "--uid=owner", "--display-name=owner", *keys)
        until(server.is_up, "the gateway knows its user", within_s=30)
        yield server


def _make_keys(folder: Path, run: Callable[..., None]) -> None:
    """Keys for the parts of the cluster, in the files `keyring` (of all) and `monitor.keyring` (which has them too)."""
    run("ceph-authtool", "-C", "monitor.keyring", "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    run("ceph-authtool", "-C", "keyring")
    for name, rights in _RIGHTS.items():
        caps = [word for part, right in rights.items() for word in ("--cap", part, right)]
        run("ceph-authtool", "keyring", "--gen-key", "-n", name, *caps)
    run("ceph-authtool", "monitor.keyring", "--import-keyring", "keyring")


_RIGHTS = {
    "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
    "client.rgw.a": {"mon": "allow rw", "osd": "allow rwx", "mgr": "allow rw"},
    "mgr.a": {"mon": "allow profile mgr", "osd": "allow *"},
    "osd.0": {"mon": "allow profile osd", "osd": "allow *", "mgr": "allow profile osd"},
}

_SETTINGS = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor}/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind port min = {first}
ms bind port max = {last}
keyring = {at}/keyring
auth allow insecure global id reclaim = true
mgr initial modules =
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
osd crush chooseleaf type = 0
osd objectstore = memstore
memstore device bytes = 1073741824
run dir = {at}
log file = {at}/$name.log
admin socket = {at}/$name.asok
pid file = {at}/$name.pid
mon data = {at}/monitor
mgr data = {at}/manager
osd data = {at}/store
rgw data = {at}/gateway
[client.rgw.a]
rgw trust forwarded https = true
rgw frontends = beast endpoint=127.0.0.1:{port}
"""
