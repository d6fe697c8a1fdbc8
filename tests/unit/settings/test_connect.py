"""Connections: presets lie beneath the operator's settings, and what can never work is refused by its path."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.settings_sources import SourceFiles
from worker.settings import sources as reading
from worker.settings.presets import preset

TOKEN = 'token = "a-token-of-some-length"'
MAPPED = 'asset_id = "id"\ncontent_url = "/images/{asset_id}"'
POLL = f'[connect.a]\nurl = "https://a.example"\n[connect.a.poll]\nenabled = true\n{MAPPED}\n'
INLET = f'[connect.a]\nurl = "https://a.example"\n[connect.a.inlet]\nenabled = true\n{TOKEN}\n'


@pytest.fixture
def sources(tmp_path: Path) -> SourceFiles:
    return SourceFiles(tmp_path)


def test_what_is_set_lies_above_the_preset_and_tables_are_merged(sources: SourceFiles) -> None:
    sources.toml(
        f"""
        [connect.photos]
        preset = "immich"
        url = "https://photos.example"
        inlet = {{ {TOKEN}, file_name = "name" }}
        target = {{ settle_s = 5, read = {{ tags = "tags[].value" }} }}
        """
    )
    values = preset("immich")
    found = sources.load().settings.connect["photos"]
    assert found.inlet.file_name == "name"
    assert found.inlet.asset_id == values["inlet"]["asset_id"]
    assert found.target.settle_s == 5
    assert found.target.read.tags == "tags[].value"
    assert found.target.read.path == values["target"]["read"]["path"]
    assert not found.poll.enabled


def test_a_key_of_a_preset_that_is_none_is_refused_with_its_path(
    sources: SourceFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "preset", lambda _name: {**preset("immich"), "poll": {"evry_s": 3}})
    sources.toml(f'[connect.a]\npreset = "immich"\nurl = "https://a.example"\ninlet = {{ {TOKEN} }}')
    assert "connect.a.poll.evry_s: is not a setting; did you mean connect.a.poll.every_s? (preset immich" in (
        sources.complaint()
    )


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ('[connect.a]\npreset = "no-such"', "connect.a.preset"),
        ('[connect."a/b"]\nenabled = false', "'a/b' is no name"),
        ('[connect.".."]\nenabled = false', "'..' is no name"),
        ("[connect.a]", "connect.a.enabled: nothing of it is used"),
        (f'{INLET}asset_id = "a..b"', "connect.a.inlet.asset_id"),
        (f'{INLET}asset_id = "nosuch(id)"', "there is no function nosuch()"),
        (f'{INLET}accept = "a && starts_with(b)"', "starts_with() takes 2 values, not 1"),
        (f'{INLET}accept = "join(`,`, a)"', "a text stands in single quotes"),
        (f"{INLET}accept = \"join(',', map(&nosuch(@), c))\"", "there is no function nosuch()"),
        (f'{INLET}accept = "{"(" * 3000}a{")" * 3000}"', "nested too deeply"),
        (f'{INLET}asset_id = "id"', "connect.a.inlet.content_url: exactly one of content_url and content_path"),
        (f'{INLET}asset_id = "id"\ncontent_url = "/i/{{file}}"', "not among asset_id and variables: file"),
        (f'{INLET}asset_id = "id"\ncontent_url = "/i/{{asset_id"', "connect.a.inlet.content_url"),
        (f'{INLET}asset_id = "id"\ncontent_url = "https://{{asset_id}}/x"', "scheme, host and port are not filled in"),
        (INLET.replace(TOKEN, ""), "connect.a.inlet.token: is missing: anyone could send events"),
        (f"{INLET}{MAPPED}\n[connector.http]\nenabled = false", "no inlet can be reached while connector.http.enabled"),
        (POLL, "connect.a.poll.path: is missing"),
        (f'{POLL}path = "/l?since={{cursor}}"', "connect.a.poll.cursor: is missing"),
        (f'{POLL}path = "/l"\nbody = {{ since = ["=cursor"] }}', "connect.a.poll.cursor: is missing"),
        (f'{POLL}path = "/l?since={{curser}}"', "connect.a.poll.path: names what is not among"),
        (f'{POLL}path = "/l"\nbody = {{ a = {{ b = ["x", "=pge"] }} }}', "a.b[1]: `pge` names none of"),
        (f'{POLL}path = "/l"\nbody = {{ a = ["=a..b"] }}', "a[0]: no JMESPath expression"),
        (f'{POLL}path = "/l"\nbegin = "soon"', "connect.a.poll.begin"),
        (f'{POLL}path = "/l"\nbegin = "nan"', "connect.a.poll.begin"),
        ('[connect.a]\npoll = { enabled = true, kind = "s3" }', "connect.a.poll.bucket: is missing"),
        ('[connect.a]\npoll = { enabled = true, kind = "s3", bucket = "b" }', "connect.a.s3: is missing"),
        ('[connect.a]\ns3 = "x"\npoll = { enabled = true, kind = "s3", bucket = "b" }', "no table [sources.s3.x]"),
        (
            '[connect.a]\nurl = "https://a.example"\n[connect.a.target]\nenabled = true\n'
            'read = { path = "/r" }\nadd = { path = "/a", body = { t = "=nosuch(tag)" } }\nremove = { path = "/r" }',
            "connect.a.target.add.body",
        ),
    ],
)
def test_what_can_never_work_is_refused(sources: SourceFiles, text: str, complaint: str) -> None:
    sources.toml(text)
    assert complaint in sources.complaint()


@pytest.mark.parametrize("begin", ["now", "0", "17", "1.5e9", "2026-01-01T00:00:00Z", "2026-01-01", "-3"])
def test_a_listing_begins_now_at_a_time_or_at_a_number(sources: SourceFiles, begin: str) -> None:
    sources.toml(f'{POLL}path = "/l?page={{page}}"\nbegin = "{begin}"')
    assert sources.load().settings.connect["a"].poll.begin == begin
