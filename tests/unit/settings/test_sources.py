"""Where settings are read from: precedence, origins, names, and files that cannot be read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.settings_sources import SourceFiles
from worker.errors import Misconfigured
from worker.settings import Settings, load_settings
from worker.settings.names import is_setting
from worker.settings.schema import SYSTEM, environment_name

PREFETCH = ("amqp", "prefetch")


@pytest.fixture
def sources(tmp_path: Path) -> SourceFiles:
    return SourceFiles(tmp_path)


def test_an_empty_configuration_holds_the_defaults(sources: SourceFiles) -> None:
    loaded = sources.load()
    assert loaded.settings == Settings()
    assert loaded.config_file is None
    assert loaded.origin(PREFETCH) == "default"


def test_each_source_takes_precedence_over_the_ones_below_it(sources: SourceFiles) -> None:
    environ: dict[str, str] = {}

    def effective() -> tuple[int, str]:
        loaded = sources.load(environ)
        return loaded.settings.amqp.prefetch, loaded.origin(PREFETCH)

    sources.toml("amqp.prefetch = 2")
    assert effective() == (2, f"file {sources.directory / 'autotag.toml'}")
    sources.secret("amqp__prefetch", "3\n")
    assert effective() == (3, "secret amqp__prefetch")
    sources.dotenv("AUTOTAG_AMQP__PREFETCH=4")
    assert effective() == (4, ".env AUTOTAG_AMQP__PREFETCH")
    environ["AUTOTAG_AMQP__PREFETCH"] = "5"
    assert effective() == (5, "environment AUTOTAG_AMQP__PREFETCH")


def test_a_higher_source_leaves_the_neighbours_of_its_key_alone(sources: SourceFiles) -> None:
    sources.toml("[amqp]\nprefetch = 2\nheartbeat_s = 7")
    amqp = sources.load({"AUTOTAG_AMQP__PREFETCH": "5"}).settings.amqp
    assert (amqp.prefetch, amqp.heartbeat_s) == (5, 7)


def test_the_file_named_by_the_caller_comes_before_the_one_in_the_environment(tmp_path: Path) -> None:
    for name, prefetch in (("autotag", 1), ("variable", 2), ("option", 3)):
        (tmp_path / f"{name}.toml").write_text(f"amqp.prefetch = {prefetch}")
    environ = {"AUTOTAG_CONFIG": str(tmp_path / "variable.toml")}

    assert load_settings(environ={}, directory=tmp_path).settings.amqp.prefetch == 1
    assert load_settings(environ=environ, directory=tmp_path).settings.amqp.prefetch == 2
    chosen = load_settings(tmp_path / "option.toml", environ=environ, directory=tmp_path)
    assert chosen.settings.amqp.prefetch == 3
    assert chosen.config_file == tmp_path / "option.toml"


def test_the_dotenv_file_may_name_the_configuration_and_the_secrets(sources: SourceFiles, tmp_path: Path) -> None:
    (tmp_path / "other.toml").write_text("amqp.prefetch = 9")
    (tmp_path / "keys").mkdir()
    (tmp_path / "keys" / "amqp__username").write_text("from-secret")
    sources.dotenv(f"AUTOTAG_CONFIG={tmp_path}/other.toml\nAUTOTAG_SECRETS_DIR={tmp_path}/keys\nOTHER_PROGRAM=1")
    amqp = sources.load().settings.amqp
    assert (amqp.prefetch, amqp.username) == (9, "from-secret")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/a,/srv/b", ("/srv/a", "/srv/b")),
        (' ["/srv/a, b"]', ("/srv/a, b",)),
        (",", ()),
        ("/srv/a:/srv/b", ("/srv/a", "/srv/b")),
        ("/srv/a:b", ("/srv/a:b",)),
        ("/srv/a:/b,/srv/c", ("/srv/a:/b", "/srv/c")),
        ("/srv/a/\n", ("/srv/a",)),
    ],
)
def test_a_list_in_the_environment_is_written_with_commas_or_as_json(
    sources: SourceFiles, text: str, expected: tuple[str, ...]
) -> None:
    roots = sources.load({"AUTOTAG_SOURCES__PATH_ROOTS": text}).settings.sources.path_roots
    assert roots == tuple(map(Path, expected))


def test_a_map_in_the_environment_is_written_as_json(sources: SourceFiles) -> None:
    assert sources.load({"AUTOTAG_DEFAULTS__SITES": '{"Intranet": false}'}).settings.defaults.sites == {
        "Intranet": False
    }
    assert "defaults.sites" in sources.complaint({"AUTOTAG_DEFAULTS__SITES": "{Intranet"})
    assert "must be a table" in sources.complaint({"AUTOTAG_DEFAULTS__SITES": "[]"})


def test_an_empty_variable_counts_as_not_set(sources: SourceFiles) -> None:
    sources.toml('amqp.username = "file"')
    assert sources.load({"AUTOTAG_AMQP__USERNAME": "", "AUTOTAG_CONFIG": ""}).settings.amqp.username == "file"


def test_variables_that_kubernetes_sets_for_a_service_called_autotag_are_left_alone(sources: SourceFiles) -> None:
    sources.load(
        {
            "AUTOTAG_SERVICE_HOST": "10.0.0.7",
            "AUTOTAG_SERVICE_PORT": "9464",
            "AUTOTAG_SERVICE_PORT_METRICS": "9464",
            "AUTOTAG_PORT": "tcp://10.0.0.7:9464",
            "AUTOTAG_PORT_9464_TCP": "tcp://10.0.0.7:9464",
            "AUTOTAG_PORT_9464_TCP_ADDR": "10.0.0.7",
            "AUTOTAG_HTTP_SERVICE_HOST": "10.0.0.7",
            "AUTOTAG_HTTP_PORT": "tcp://10.0.0.7:9464",
            "AUTOTAG_TEST_PHOTOGRAPHS": "/photographs",
        }
    )


@pytest.mark.parametrize(
    ("environ", "meant"),
    [
        ({"AUTOTAG_AMQP__PREFECH": "1"}, "AUTOTAG_AMQP__PREFETCH"),
        ({"AUTOTAG_HTTP_PORT": "9464"}, "AUTOTAG_HTTP__PORT"),
        ({"AUTOTAG_INSTANCES__ACME__TENSORFLO__ENABLED": "1"}, "AUTOTAG_INSTANCES__ACME__TENSORFLOW__ENABLED"),
        ({"AUTOTAG_CONFIDENCE_THRESHOLD": "1"}, "CONFIDENCE_THRESHOLD"),
    ],
)
def test_a_variable_that_stands_for_nothing_is_refused_with_what_was_meant(
    sources: SourceFiles, environ: dict[str, str], meant: str
) -> None:
    complaint = sources.complaint(environ)
    assert next(iter(environ)) + ": is not a setting; did you mean" in complaint
    assert meant + "?" in complaint


@pytest.mark.parametrize("variable", ["AUTOTAG_VERSION_OF_IMAGE", "AUTOTAG_XYZZY"])
def test_a_variable_that_resembles_no_setting_is_reported_and_ignored(sources: SourceFiles, variable: str) -> None:
    sources.dotenv(f"{variable}=1")
    assert [each.key for each in sources.load().ignored_variables] == [f".env {variable}"]
    assert variable in sources.load({variable: "2"}).ignored_variables[1].key


def test_the_variable_of_our_own_compose_file_is_no_setting_and_none_is_meant(sources: SourceFiles) -> None:
    sources.dotenv("AUTOTAG_IMAGES=/srv/dms/images")
    assert sources.load({"AUTOTAG_IMAGES": "/srv/dms/images"}).ignored_variables == ()


def test_every_variable_that_our_own_files_name_is_known() -> None:
    root = Path(__file__).resolve().parents[3]
    files = [
        root / "README.md",
        *root.glob("docs/*.md"),
        *(each for each in root.glob("deploy/**/*") if each.is_file()),
    ]
    named = {name for file in files for name in re.findall(r"\bAUTOTAG_[A-Z]+(?:_[A-Z]+)*\b", file.read_text("utf-8"))}
    assert "AUTOTAG_IMAGES" in named
    settings = {environment_name(key) for key in SYSTEM}
    assert {name for name in named - settings if is_setting(name, "x")} == set()


def test_a_byte_order_mark_is_no_part_of_a_file(sources: SourceFiles) -> None:
    sources.toml("\ufeffamqp.prefetch = 9\r\n")
    sources.dotenv("\ufeffAUTOTAG_LOG__LEVEL=debug\r\n")
    sources.secret("http__token", "\ufeffabcdefghijklmnop\r\n")
    settings = sources.load().settings
    assert (settings.amqp.prefetch, settings.log.level) == (9, "debug")
    assert settings.http.token is not None
    assert settings.http.token.get_secret_value() == "abcdefghijklmnop"


def test_a_text_in_the_file_is_a_list_as_in_the_environment(sources: SourceFiles) -> None:
    sources.toml('[sources]\npath_roots = "/srv/a"\nurl_allowed_hosts = "a.example, b.example"')
    found = sources.load().settings.sources
    assert found.path_roots == (Path("/srv/a"),)
    assert found.url_allowed_hosts == ("a.example", "b.example")


def test_an_unknown_key_in_the_file_is_refused_with_what_was_meant(sources: SourceFiles) -> None:
    sources.toml('[amqp]\nprefech = 1\n[instances."a.b".tensorflow]\nconfidence = 0.5\n[nonsense]\nqqq = 1')
    complaint = sources.complaint()
    assert "amqp.prefech: is not a setting; did you mean amqp.prefetch? (file" in complaint
    assert 'did you mean instances."a.b".tensorflow.confidence_threshold?' in complaint
    assert "nonsense: is not a setting (file" in complaint


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("amqp = 3", "must be a table, [amqp]"),
        ("instances = 3", "must be a table of tables"),
        ("instances.acme = 3", "must be a table, [instances.acme]"),
        ("[amqp\nprefetch = 3", "not valid TOML"),
    ],
)
def test_a_file_of_the_wrong_shape_is_refused(sources: SourceFiles, text: str, complaint: str) -> None:
    sources.toml(text)
    assert complaint in sources.complaint()


def test_a_named_file_that_is_missing_or_unreadable_is_refused(tmp_path: Path) -> None:
    (tmp_path / "latin1.toml").write_bytes(b"# \xe9")
    for name, why in (("none.toml", "No such file"), (".", "Is a directory"), ("latin1.toml", "not a UTF-8 text")):
        with pytest.raises(Misconfigured, match=why):
            load_settings(tmp_path / name, environ={}, directory=tmp_path)


def test_a_dotenv_file_that_is_not_a_text_is_refused(sources: SourceFiles) -> None:
    (sources.directory / ".env").write_bytes(b"AUTOTAG_AMQP__USERNAME=\xff\xfe")
    assert ".env: not a UTF-8 text" in sources.complaint()


def test_every_problem_of_every_source_is_reported_at_once(sources: SourceFiles) -> None:
    sources.toml("amqp.prefetch = 0\nhttp.port = 70000")
    sources.dotenv("AUTOTAG_LOG__LEVEL=loud")
    complaint = sources.complaint({"AUTOTAG_RETRY__DELAYS_S": "1,-1", "AUTOTAG_NONSENSE__X": "1"})
    lines = complaint.splitlines()
    assert len(lines) == 1 + 5
    assert any("amqp.prefetch = 0: must be a whole number from 1 to 1000 (file " in line for line in lines)
    assert any('log.level = "loud": must be one of "debug"' in line and "(.env AUTOTAG_LOG" in line for line in lines)


def test_loading_twice_gives_the_same_and_leaves_the_first_tree_alone(sources: SourceFiles) -> None:
    sources.toml("instances.acme.maximum_number_of_tags_per_asset = 3")
    first = sources.load()
    assert sources.load() == first
    sources.toml("instances.acme.maximum_number_of_tags_per_asset = 4")
    second = sources.load()
    assert first.settings.instances["acme"].maximum_number_of_tags_per_asset == 3
    assert second.settings.instances["acme"].maximum_number_of_tags_per_asset == 4


def test_constructing_settings_reads_no_source(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("AUTOTAG_AMQP__PREFETCH", "5")
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("AUTOTAG_AMQP__PREFETCH=6")
    assert Settings().amqp.prefetch == 64
    assert load_settings().settings.amqp.prefetch == 5
