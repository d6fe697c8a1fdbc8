"""Allowed values: ranges, contradictions between settings, and that a tree cannot be changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from tests.support.settings_sources import SourceFiles
from worker.settings import Settings


@pytest.fixture
def sources(tmp_path: Path) -> SourceFiles:
    return SourceFiles(tmp_path)


@pytest.mark.parametrize(
    ("line", "allowed"),
    [
        ("defaults.tensorflow.confidence_threshold = 1.01", "a number from 0 to 1"),
        ("defaults.tensorflow.confidence_threshold = -0.1", "a number from 0 to 1"),
        ("defaults.tensorflow.confidence_threshold = nan", "a number from 0 to 1"),
        ("defaults.google_cloud_vision.confidence_threshold = 2", "a number from 0 to 1"),
        ("defaults.google_cloud_vision.maximum_number_of_results = 0", "a whole number from 1 to 50"),
        ("defaults.google_cloud_vision.calls_per_second = 0", "a number above 0"),
        ("maximum_number_of_tags_per_asset = -1", "a whole number of at least 0"),
        ("tensorflow.maximum_number_of_relaunches = -1", "a whole number of at least 0"),
        ("tensorflow.maximum_number_of_relaunches_time_interval = 0", "a number above 0"),
        ("tensorflow.batch_size = 17", "a whole number from 1 to 16"),
        ("amqp.prefetch = 0", "a whole number from 1 to 1000"),
        ("amqp.prefetch = 1.5", "a whole number from 1 to 1000"),
        ("amqp.prefetch = true", "a whole number from 1 to 1000"),
        ('amqp.queue_prefix = "a b"', "letters, digits, dots, dashes and underscores"),
        ("shutdown_grace_s = inf", "a number above 0"),
        ("retry.delays_s = []", "a list of one to ten numbers above 0"),
        ("retry.delays_s = [0]", "a list of one to ten numbers above 0"),
        ('sources.maximum_bytes = "much"', "a whole number of at least 1, or a text such as 64 MiB"),
        ('sources.url_allowed_hosts = ["https://dms.example.org"]', "a list of host names (write example.org"),
        ('sources.url_allowed_hosts = ["dms.example.org:0"]', "a list of host names (write example.org"),
        ('sources.url_allowed_hosts = ["dms.example.org:99999"]', "a list of host names (write example.org"),
        ('sources.url_allowed_hosts = ["::1"]', "a list of host names (write example.org"),
        ("sources.url_allowed_ports = [0]", "a list of whole numbers from 1 to 65535"),
        ('unknown_instances = "guess"', 'one of "defaults", "skip", "refuse"'),
        ("enabled = 2", "true or false"),
        ('defaults.sites = {intranet = "perhaps"}', "a table from a site's name to true or false"),
        ('defaults.microsoft_vision.api_endpoint = "westeurope"', "an http or https address without query"),
        ('defaults.google_cloud_vision.endpoint = "https://a/v1?key=x"', "an http or https address without query"),
        ("tensorflow.calibration = {efficientnet-lite2 = {label = {slope = 1, offset = 0}}}", "a table from a model's"),
        ('models.inception5h.sha256 = "abc"', "64 lower-case hexadecimal digits"),
    ],
)
def test_a_value_out_of_range_is_refused_with_key_value_and_what_is_allowed(
    sources: SourceFiles, line: str, allowed: str
) -> None:
    sources.toml(line)
    key = line.partition(" = ")[0]
    complaint = sources.complaint()
    assert f"{key} = " in complaint
    assert f"must be {allowed}" in complaint
    assert str(sources.directory / "autotag.toml") in complaint


def test_a_wrong_value_of_one_instance_is_refused_at_start(sources: SourceFiles) -> None:
    sources.toml("instances.acme.tensorflow.confidence_threshold = 1.5")
    assert "  instances.acme.tensorflow.confidence_threshold = 1.5: must be a number from 0 to 1" in sources.complaint()


def test_a_wrong_default_is_reported_once_and_not_for_each_instance(sources: SourceFiles) -> None:
    sources.toml("defaults.tensorflow.confidence_threshold = 7\n[instances.a]\n[instances.b]")
    assert sources.complaint().count("confidence_threshold") == 1


def test_sizes_may_be_written_with_a_unit(sources: SourceFiles) -> None:
    sources.toml('sources.maximum_bytes = "64 MiB"')
    assert sources.load().settings.sources.maximum_bytes == 64 * 1024**2


def test_a_path_may_begin_with_the_home_directory(sources: SourceFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    sources.toml('state_dir = "~/state"')
    settings = sources.load().settings
    assert settings.state_dir == Path("/home/someone/state")
    assert settings.control_socket == Path("/home/someone/state/control.sock")


@pytest.mark.parametrize(
    "address",
    ["amqp://h", "amqps://u:p@h:5671/%2F", "amqp://u@[::1]:5672", "amqp://a%40b:p%2Fq@h/vhost", "amqp://u:p@h/"],
)
def test_addresses_of_a_broker(sources: SourceFiles, address: str) -> None:
    url = sources.load({"AUTOTAG_AMQP__URL": address}).settings.amqp.url
    assert url.get_secret_value() == address


@pytest.mark.parametrize(
    "address",
    ["http://h", "amqp://", "amqp://u:p@ss@h", "amqp://u:p/ss@h", "amqp://u:12?p@h", "h:5672", "amqp://h\nx"],
)
def test_what_is_not_an_address_of_a_broker_is_refused_without_being_shown(sources: SourceFiles, address: str) -> None:
    assert "amqp.url = ********: must be an amqp:// or amqps:// address" in sources.complaint(
        {"AUTOTAG_AMQP__URL": address}
    )


def test_white_space_around_an_address_is_no_part_of_it(sources: SourceFiles) -> None:
    assert sources.load({"AUTOTAG_AMQP__URL": " amqp://h\n"}).settings.amqp.url.get_secret_value() == "amqp://h"


@pytest.mark.parametrize("port", ["0", "65536", "99999"])
def test_a_port_that_is_none_is_refused_without_showing_the_address(sources: SourceFiles, port: str) -> None:
    complaint = sources.complaint({"AUTOTAG_AMQP__URL": f"amqp://user:s3cret@h:{port}/"})
    assert "amqp.url = ********" in complaint
    assert "its port must be from 1 to 65535" in complaint
    assert "s3cret" not in complaint


@pytest.mark.parametrize("level", ["INFO", "Info", " info ", "WARN", "warning"])
def test_a_choice_may_be_written_in_capitals(sources: SourceFiles, level: str) -> None:
    sources.toml(f'log.level = "{level}"')
    assert sources.load({"AUTOTAG_LOG__FORMAT": "JSON"}).settings.log.format == "json"
    assert sources.load().settings.log.level in ("info", "warning")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("64Mi", 64 << 20), ("64 Mi", 64 << 20), ("2Gi", 2 << 30), ("64MiB", 64 << 20), ("64M", 64e6)],
)
def test_a_size_may_have_the_units_of_kubernetes(sources: SourceFiles, text: str, expected: float) -> None:
    assert sources.load({"AUTOTAG_SOURCES__MAXIMUM_BYTES": text}).settings.sources.maximum_bytes == expected


@pytest.mark.parametrize("yes", ["yes", "TRUE", "On", "1", " true "])
def test_a_switch_may_be_written_in_many_ways(sources: SourceFiles, yes: str) -> None:
    assert sources.load({"AUTOTAG_SOURCES__URL_REQUIRE_HTTPS": yes}).settings.sources.url_require_https is True


def test_a_number_with_a_unit_is_refused_with_the_unit_that_is_meant(sources: SourceFiles) -> None:
    assert "seconds" in sources.complaint({"AUTOTAG_SHUTDOWN_GRACE_S": "30s"})


def test_quotes_that_have_become_a_part_of_a_value_are_named(sources: SourceFiles) -> None:
    complaint = sources.complaint({"AUTOTAG_AMQP__URL": '"amqp://u:s3cret@h/"', "AUTOTAG_LOG__LEVEL": "'info'"})
    assert complaint.count("leave them out") == 2
    assert "s3cret" not in complaint


def test_without_a_home_the_directories_are_those_of_the_system(
    sources: SourceFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Given an arbitrary user id of a container: no HOME, no entry in /etc/passwd
    for name in ("HOME", "XDG_CACHE_HOME", "XDG_STATE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("os.getuid", lambda: 123_456)
    # Then the settings are read, and a path with ~ is refused by its name
    settings = sources.load().settings
    assert (settings.cache_dir, settings.state_dir) == (Path("/var/cache/autotag"), Path("/var/lib/autotag"))
    assert "sources.path_roots" in sources.complaint({"AUTOTAG_SOURCES__PATH_ROOTS": "~/images"})


CONTRADICTIONS = {
    "instances.acme.maximum_number_of_tags_per_asset: 6 is above the system's": (
        "maximum_number_of_tags_per_asset = 5\n[instances.acme]\nmaximum_number_of_tags_per_asset = 6"
    ),
    "amqp.key_file: has no effect without amqp.cert_file": '[amqp]\nurl = "amqps://h"\nkey_file = "/k"',
    "http.key_file: has no effect without http.certificate_file": 'http.key_file = "/k"',
    "amqp.ca_file: has no effect: amqp.url does not begin with amqps://": 'amqp.ca_file = "/ca"',
}


@pytest.mark.parametrize("expected", CONTRADICTIONS)
def test_settings_that_contradict_each_other_are_refused(sources: SourceFiles, expected: str) -> None:
    sources.toml(CONTRADICTIONS[expected])
    complaint = sources.complaint()
    assert expected in complaint
    assert len(complaint.splitlines()) == 2, "and nothing else is complained about"


def test_one_instance_without_a_key_is_no_reason_to_refuse_the_others(sources: SourceFiles) -> None:
    sources.toml("[instances.acme.google_cloud_vision]\nenabled = true\n[instances.beta.tensorflow]\nenabled = true")
    instances = sources.load().settings.instances
    assert instances["acme"].google_cloud_vision.enabled
    assert instances["beta"].tensorflow.enabled


def test_a_key_that_cannot_travel_in_a_header_is_refused(sources: SourceFiles) -> None:
    sources.toml('instances.acme.google_cloud_vision.api_key = "two words"')
    assert "api_key = ********: must be a text (it holds a space" in sources.complaint()


def test_settings_cannot_be_changed() -> None:
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.enabled = False  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        settings.amqp.prefetch = 5  # type: ignore[misc]


def test_the_defaults_of_the_code_are_of_their_declared_types() -> None:
    assert isinstance(Settings().amqp.connection_timeout_s, float)
    assert Settings().retry.delays_s == (10.0, 60.0, 600.0)


@pytest.mark.parametrize("token", ["t", "a" * 5])
def test_a_token_that_can_be_guessed_is_refused(token: str) -> None:
    with pytest.raises(ValidationError, match=r"openssl rand -hex 16"):
        Settings.model_validate({"http": {"token": token}})
    assert Settings.model_validate({"http": {"token": "a" * 16}}).http.token is not None


CURVE = "{ slope = 1, offset = 0.5 }"


def curves(model: str, label: str = CURVE) -> str:
    return f"tensorflow.calibration.{model} = {{ label = {label}, parent = {CURVE} }}"


def test_curves_are_of_a_model_in_the_catalogue_or_of_a_directory(sources: SourceFiles) -> None:
    sources.toml("\n".join([curves("efficientnet-lite2"), curves('"/srv/models/inner"'), 'tensorflow.model = "mine"']))
    loaded = sources.load()
    tensorflow = loaded.settings.tensorflow
    assert tensorflow.calibration["/srv/models/inner"].label.offset == 0.5
    shown = {each.key: each.value for each in loaded.system()}
    assert shown["tensorflow", "calibration"]["efficientnet-lite2"]["parent"] == {"slope": 1.0, "offset": 0.5}
    sources.toml("\n".join([curves("mine"), 'tensorflow.model = "mine"']))
    assert sources.load().settings.tensorflow.calibration["mine"].label.slope == 1


def test_curves_of_a_model_that_nobody_knows_are_refused_with_the_models_there_are(sources: SourceFiles) -> None:
    sources.toml(curves("efficientnet-lite3"))
    complaint = sources.complaint()
    assert "there is no model 'efficientnet-lite3': give one of efficientnet-lite0, " in complaint
    assert "inception5h" in complaint


@pytest.mark.parametrize(
    "curve",
    [
        "{ slope = 0, offset = 0 }",
        "{ slope = -1, offset = 0 }",
        "{ slope = nan, offset = 0 }",
        "{ slope = 1, offset = inf }",
        "{ slope = 1 }",
        "{ slope = 1, offset = 0, more = 1 }",
        "1",
    ],
)
def test_a_curve_that_does_not_rise_or_is_none_is_refused(sources: SourceFiles, curve: str) -> None:
    sources.toml(curves("efficientnet-lite2", curve))
    assert "tensorflow.calibration = " in sources.complaint()
