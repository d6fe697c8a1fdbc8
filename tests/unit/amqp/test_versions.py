"""What `autotag check` says of each version of RabbitMQ."""

from __future__ import annotations

import pytest

from worker.amqp.versions import BrokerVersion


def version(number: str, product: str = "RabbitMQ") -> BrokerVersion:
    return BrokerVersion.of({"product": product, "version": number})


@pytest.mark.parametrize(
    ("number", "supported", "words"),
    [
        ("3.9.29", False, ["older than 3.10"]),
        ("3.10.8", True, ["out of community support"]),
        ("3.13.7", True, ["16 MiB, not 128 MiB"]),
        ("4.0.5", True, ["up to 16 MiB"]),
        ("4.2.0-rc.1", True, ["up to 16 MiB"]),
        ("4.3.0", True, ["up to 16 MiB", "does not count towards the delivery limit"]),
        ("4.10.1", True, ["up to 16 MiB", "does not count", "newer than 4.3"]),
        ("5.0.0", True, ["up to 16 MiB", "does not count", "newer than 4.3"]),
    ],
)
def test_each_version_gets_the_remarks_that_matter_for_it(number: str, supported: bool, words: list[str]) -> None:
    it = version(number)
    assert str(it) == f"RabbitMQ {number}"
    assert it.supported is supported
    assert len(it.remarks()) == len(words)
    for remark, expected in zip(it.remarks(), words, strict=True):
        assert expected in remark


@pytest.mark.parametrize("it", [version("2.1.0", "LavinMQ"), version("unknown"), BrokerVersion.of(None)])
def test_a_broker_that_is_no_rabbitmq_or_names_no_version_is_not_vouched_for(it: BrokerVersion) -> None:
    assert not it.supported
    assert it.series is None
    assert "not tested" in it.remarks()[0]
