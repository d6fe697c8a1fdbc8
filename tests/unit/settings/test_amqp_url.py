"""The query of the broker's address: each parameter is a setting, or refused by its name; none is ignored."""

from __future__ import annotations

from pathlib import Path
from typing import get_type_hints

import pika
import pytest

from tests.support.settings_sources import SourceFiles
from worker.amqp.parameters import addresses, connection_parameters, password
from worker.settings import AmqpSettings
from worker.settings.amqp_url import _INSTEAD, MEANT
from worker.settings.load import shown

URL = "AUTOTAG_AMQP__URL"


@pytest.fixture
def sources(tmp_path: Path) -> SourceFiles:
    return SourceFiles(tmp_path)


@pytest.mark.parametrize(
    ("query", "setting", "value"),
    [
        ("heartbeat=45", "heartbeat_s", 45),
        ("blocked_connection_timeout=120", "blocked_timeout_s", 120.0),
        ("stack_timeout=7.5", "connection_timeout_s", 7.5),
        ("socket_timeout=7", "connection_timeout_s", 7.0),
        ("socket_timeout=7&stack_timeout=7", "connection_timeout_s", 7.0),
        ("", "heartbeat_s", 30),
    ],
)
@pytest.mark.parametrize("address", ["amqp://h", "amqps://u:p@h:5671,i/%2F", "amqp://h/"])
def test_what_a_setting_means_is_that_setting(
    sources: SourceFiles, address: str, query: str, setting: str, value: float
) -> None:
    url = f"{address}?{query}"
    assert getattr(sources.load({URL: url}).settings.amqp, setting) == value
    assert getattr(AmqpSettings.model_validate({"url": url}), setting) == value, "where no source is read"


def test_the_connection_is_made_with_it_and_the_address_is_the_same() -> None:
    settings = AmqpSettings.model_validate({"url": "amqp://u:p%40@h:1,i/v%2F?heartbeat=12&socket_timeout=3"})
    with_query, without = (
        addresses(each) for each in (settings, AmqpSettings.model_validate({"url": "amqp://u:p%40@h:1,i/v%2F"}))
    )
    assert with_query == without
    assert password(settings) == "p@"
    parameters = connection_parameters(settings, "name", with_query[0])
    assert (parameters.heartbeat, parameters.socket_timeout, parameters.virtual_host) == (12, 3.0, "v/")


def test_a_setting_of_its_own_takes_the_place_of_the_query(sources: SourceFiles) -> None:
    sources.toml("[amqp]\nheartbeat_s = 20\n")
    assert sources.load({URL: "amqp://h?heartbeat=45"}).settings.amqp.heartbeat_s == 20


def test_it_is_shown_where_the_value_came_from(sources: SourceFiles) -> None:
    loaded = sources.load({URL: "amqp://u:pw@h?heartbeat=45"})
    assert loaded.origin(("amqp", "heartbeat_s")) == f"query of amqp.url, environment {URL}"
    assert loaded.origin(("amqp", "blocked_timeout_s")) == "default"
    assert shown(loaded.settings.amqp.url) == "amqp://u:********@h?heartbeat=45"


@pytest.mark.parametrize(
    ("query", "complaint"),
    [
        ("heartbeat=0", 'amqp.heartbeat_s = "0": must be a whole number from 1 to 3600, in seconds'),
        ("heartbeat=often", 'amqp.heartbeat_s = "often": must be a whole number from 1 to 3600'),
        ("heartbeat=", 'amqp.heartbeat_s = "": must be'),
        ("stack_timeout=-1", "amqp.connection_timeout_s"),
        ("heartbeat=5&heartbeat=6", "its parameters give heartbeat_s two values"),
        ("socket_timeout=1&stack_timeout=2", "its parameters give connection_timeout_s two values"),
        ("connection_attempts=3", "its parameter connection_attempts is not used here: leave it out"),
        ("cacertfile=/etc/ca.pem", "its parameter cacertfile is not used here: set amqp.ca_file"),
        ("heartbeats=30", "its parameter heartbeats is unknown; there are heartbeat, "),
        ("heartbeat", 'amqp.heartbeat_s = ""'),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_name(sources: SourceFiles, query: str, complaint: str) -> None:
    text = sources.complaint({URL: f"amqp://u:pw@h/?{query}"})
    assert complaint.replace(", in seconds", "") in text.replace(" (in seconds, without a unit)", "")
    assert "pw" not in text
    with pytest.raises(ValueError, match=r"amqp|url|heartbeat|timeout"):
        AmqpSettings.model_validate({"url": f"amqp://u:pw@h/?{query}"})


def test_what_is_no_name_may_be_a_password_and_is_not_shown(sources: SourceFiles) -> None:
    text = sources.complaint({URL: "amqp://guest:5672?S3cret!"})
    assert "its parameter is unknown" in text
    assert "S3cret" not in text


def test_every_parameter_that_pika_takes_from_an_address_has_an_answer() -> None:
    setters = [name for name in dir(pika.URLParameters) if name.startswith("_set_url_")]
    assert len(setters) > 8
    assert {name.removeprefix("_set_url_") for name in setters} <= MEANT.keys() | _INSTEAD.keys()


def test_every_setting_that_a_parameter_means_exists() -> None:
    assert set(MEANT.values()) <= get_type_hints(AmqpSettings).keys()
