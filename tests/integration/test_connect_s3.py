"""Tags of S3 objects: one of ours among those of others, on real S3 services."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.delivering import NAME, connection_settings, delivering
from tests.support.polling import eventually
from tests.support.s3_stores import STORES, S3Store
from worker.connect.deliver import make_target
from worker.connect.targets.base import AssetGone, Rejected, TargetAsset, TargetRefused
from worker.settings import Settings

BUCKET = "pictures"
KEY = "2026/übung & more +1.jpg"


@pytest.fixture(scope="module", params=STORES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Store]:
    with STORES[request.param](tmp_path_factory.mktemp(request.param)) as running:
        assert running.request("PUT", f"/{BUCKET}").status_code == 200
        yield running


def sources(store: S3Store, secret: str | None = None) -> dict[str, Any]:
    keys = {"access_key": store.keys.access_key, "secret_key": secret or store.keys.secret_key}
    service = {"endpoint": store.url, **keys, "buckets": [BUCKET]}
    return {"s3": {"store": service}, "failures_to_open_circuit": 5}


def connection(**target: Any) -> dict[str, Any]:
    accept = f"context.s3.bucket == '{BUCKET}'"
    return {"s3": "store", "target": {"enabled": True, "kind": "s3", "accept": accept, "writes_per_s": 500, **target}}


def settings_of(store: S3Store, **options: Any) -> Settings:
    return connection_settings("amqp://127.0.0.1", "none", connection(), sources=sources(store, **options))


def tags_of(store: S3Store, key: str) -> dict[str, str]:
    answer = store.request("GET", f"/{BUCKET}/{quote(key)}?tagging=")
    assert answer.status_code == 200, answer.text
    pairs = re.findall(r"<Key>(.*?)</Key>\s*<Value>(.*?)</Value>", answer.text)
    return dict(pairs)


def set_tags(store: S3Store, key: str, tags: dict[str, str]) -> None:
    inside = "".join(f"<Tag><Key>{name}</Key><Value>{value}</Value></Tag>" for name, value in tags.items())
    body = f"<Tagging><TagSet>{inside}</TagSet></Tagging>".encode()
    assert store.request("PUT", f"/{BUCKET}/{quote(key)}?tagging=", body).status_code == 200


async def test_results_of_notifications_become_one_tag_beside_those_of_others(
    broker: str, queue_prefix: str, store: S3Store, tmp_path: Path
) -> None:
    store.put(BUCKET, KEY, b"a picture")
    set_tags(store, KEY, {"project": "zoo", "owner": "ann"})
    s3 = {"bucket": BUCKET, "key": KEY, "source": "minio:s3"}
    asset = f"{BUCKET}/{KEY}"
    options: dict[str, Any] = {"connect": None, "s3": s3}
    async with delivering(broker, queue_prefix, connection(), tmp_path / "ledger", sources=sources(store)) as it:
        it.results.result(asset, ["cat", "sofa/bed", "crème brûlée (à la)"], **options)
        await eventually(lambda: it.counted("written") == 1, "it is written")
        ours = tags_of(store, KEY)
        assert ours == {"project": "zoo", "owner": "ann", "autotag": "cat/sofa bed/crème brûlée à la"}
        # When a person takes one of ours away, adds one and another tag of theirs
        set_tags(store, KEY, {"project": "zoo", "autotag": "cat/crème brûlée à la/my dog", "reviewed": "yes"})
        it.results.result(asset, ["cat", "sofa/bed", "lamp"], minute=1, **options)
        await eventually(lambda: it.counted("written") == 2, "it is written")
        assert tags_of(store, KEY) == {"project": "zoo", "reviewed": "yes", "autotag": "cat/my dog/lamp"}
        assert [each.label for each in it.ledger.removals()] == ["sofa/bed"]
        # And a result without tags leaves only theirs
        it.results.result(asset, [], minute=2, **options)
        await eventually(lambda: it.counted("written") == 3, "it is written")
        assert tags_of(store, KEY) == {"project": "zoo", "reviewed": "yes", "autotag": "my dog"}
        # Of other buckets, and of objects that are gone, nothing is written
        it.results.result("other/x.jpg", ["cat"], connect=None, s3={"bucket": "other", "key": "x.jpg"})
        it.results.result(f"{BUCKET}/gone.jpg", ["cat"], connect=None, s3={"bucket": BUCKET, "key": "gone.jpg"})
        await eventually(lambda: it.counted("foreign") + it.counted("gone") == 2, "both end")
        assert it.results.dead_letters() == []


async def test_a_value_is_cut_between_two_tags_and_an_eleventh_tag_is_never_made(store: S3Store) -> None:
    settings = settings_of(store)
    target = make_target(NAME, settings)
    store.put(BUCKET, "many.jpg", b"a picture")
    asset = TargetAsset(f"{BUCKET}/many.jpg")
    names = [f"a rather long label {number}" for number in range(20)]
    added = await target.change(asset, names, [], await target.read(asset))
    value = tags_of(store, "many.jpg")["autotag"]
    assert value == "/".join(added) == "/".join(names[: len(added)])
    assert 200 < len(value) <= 256

    set_tags(store, "many.jpg", {f"theirs{number}": "x" for number in range(10)})
    with pytest.raises(Rejected, match="no more"):
        await target.change(asset, ["cat"], [], await target.read(asset))
    assert len(tags_of(store, "many.jpg")) == 10
    with pytest.raises(AssetGone):
        await target.read(TargetAsset(f"{BUCKET}/none.jpg"))
    await target.probe()
    await target.close()


async def test_wrong_keys_pause_the_target(store: S3Store) -> None:
    target = make_target(NAME, settings_of(store, secret="wrong"))
    with pytest.raises(TargetRefused) as refusal:
        await target.read(TargetAsset(f"{BUCKET}/many.jpg"))
    assert refusal.value.reason == "forbidden"
    assert "wrong" not in str(refusal.value)
    await target.close()
