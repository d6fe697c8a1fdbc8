"""Mayan EDMS from end to end: a person uploads, a workflow of Mayan's posts, and the tags stand in Mayan."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from tests.support.connector import INLET_TOKEN
from tests.support.polling import until
from tests.systems.conftest import Table
from tests.systems.connecting import connected
from tests.systems.mayan import PASSWORD, USER, Mayan, mayan

_CONFIGURATION = """
[sources]
url_allow_private_addresses = true
url_allowed_hosts = ["127.0.0.1:{port}"]
url_allowed_ports = [{port}]

[sources.credentials."http://127.0.0.1:{port}"]
kind = "basic"
username = "{user}"
password = "{password}"

[connect.mayan]
preset = "mayan"
url = "http://127.0.0.1:{port}"
credential = {{ kind = "basic", username = "{user}", password = "{password}" }}

[connect.mayan.inlet]
token = "{token}"
"""


pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mayan]:
    with mayan(tmp_path_factory.mktemp("mayan")) as running:
        yield running


def test_uploads_are_tagged_and_what_people_do_to_tags_stays(
    system: Mayan, broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path], table: Table
) -> None:
    port = system.url.rpartition(":")[2]
    configuration = _CONFIGURATION.format(port=port, user=USER, password=PASSWORD, token=INLET_TOKEN)
    with connected(broker, queue_prefix, tmp_path, configuration) as connector:
        system.call_for_new_pictures(connector.inlet("mayan"), INLET_TOKEN)

        def stands(document: str, tag: str) -> bool:
            return tag in system.tags(document)

        # When a person uploads photographs, their tags come to stand in Mayan
        documents = {name: system.upload(photographs[name]) for name in ("chelsea", "coffee", "motorcycle_left")}
        for name, tag in (("chelsea", "cat"), ("coffee", "coffee"), ("motorcycle_left", "motorcycle")):
            until(partial(stands, documents[name], tag), f"{name} has tags", within_s=90)
            table.row("Mayan: uploaded", photographs[name].name, system.tags(documents[name]))

        # And when a person adds one, removes one of ours, and uploads another picture in its place
        document = documents["chelsea"]
        ours = system.tags(document)
        system.attach(document, "Grandma's")
        system.remove(document, "cat")
        table.row("Mayan: a person adds a tag and removes one", "chelsea", system.tags(document))
        system.replace(document, photographs["motorcycle_left"])
        until(lambda: "motorcycle" in system.tags(document), "the new picture's tags stand", within_s=90)
        until(lambda: "animal" not in system.tags(document), "the old picture's tags are gone", within_s=90)
        table.row("Mayan: another picture in its place", "motorcycle_left", system.tags(document))

        # Then the person's tag is there, ours are those of the new picture, none of the old
        now = system.tags(document)
        assert "Grandma's" in now
        assert not (ours - {"cat"}) & now - system.tags(documents["motorcycle_left"])

        # And with the first picture again, the tag that the person removed stays away
        system.replace(document, photographs["chelsea"])
        until(lambda: "motorcycle" not in system.tags(document), "the tags of the other picture are gone", within_s=90)
        until(lambda: "animal" in system.tags(document), "those of the first one stand again", within_s=90)
        table.row("Mayan: the first picture again", "chelsea", system.tags(document))
        assert "cat" not in system.tags(document)
        assert "Grandma's" in system.tags(document)
