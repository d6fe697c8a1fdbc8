"""The Settings tab and its editor: who may see and change what, what a form does, and that a thousand tenants fit."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime
from html import unescape
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests.support.settings_sources import SourceFiles
from tests.unit.http.test_status_page import ELSEWHERE, FROM_THE_PAGE, HERE, TOKEN, FakeService
from worker.errors import CannotBeDone
from worker.http.app import build_app
from worker.operations.health.status import Status
from worker.settings import HttpSettings, LoadedSettings, load_settings
from worker.settings.in_force import SettingsInForce
from worker.settings.overlay.change import Editor
from worker.settings.overlay.versions import read_versions

NOW = datetime(2026, 5, 17, tzinfo=UTC)
ON = f'[http]\neditor = true\ntoken = "{TOKEN}"\n'
THRESHOLD = "instances.acme.tensorflow.confidence_threshold"


class Configured(FakeService):
    """A fake service with real sources, which a reload puts in force unless `refuses` says why not."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.files = SourceFiles(directory)
        self.files.secrets_dir.mkdir()
        self.overlay = directory / "state" / "overlay.toml"
        self.environ = {"AUTOTAG_STATE_DIR": str(directory / "state")}
        self.refuses: str | None = None

    def start(self, text: str = ON) -> Configured:
        self.files.toml(text)
        self.in_force = SettingsInForce(self.load(), NOW)
        self.settings = self.in_force.loaded.settings
        return self

    def load(self, *, overlay: Mapping[str, Any] | None = None) -> LoadedSettings:
        return load_settings(
            secrets_dir=self.files.secrets_dir, environ=self.environ, directory=self.files.directory, overlay=overlay
        )

    async def reload(self) -> Status:
        if self.refuses is not None:
            raise CannotBeDone(self.refuses, reason="refused")
        self.in_force.adopt(self.load(), NOW)
        self.settings = self.in_force.loaded.settings
        return await super().reload()

    @property
    def threshold(self) -> float | None:
        found = self.settings.instances.get("acme")
        return found.tensorflow.confidence_threshold if found else None


@pytest.fixture
def service(tmp_path: Path) -> Configured:
    return Configured(tmp_path)


Visit = Callable[..., Any]


@pytest.fixture
def visit(service: Configured) -> Visit:
    @asynccontextmanager
    async def open_client(
        address: str = HERE, *, token: str | None = TOKEN, signed_in: bool = True
    ) -> AsyncIterator[httpx.AsyncClient]:
        app = build_app(service, HttpSettings(token=SecretStr(token) if token else None))
        transport = httpx.ASGITransport(app, client=(address, 50000))
        async with httpx.AsyncClient(
            transport=transport, base_url="http://127.0.0.1:9464", headers=FROM_THE_PAGE, follow_redirects=True
        ) as client:
            if signed_in and token:
                await client.post("/sign-in", data={"token": TOKEN})
            yield client

    return open_client


async def form_of(client: httpx.AsyncClient, path: str) -> dict[str, str]:
    """The fields of the editor's form as a browser would send them, untouched."""
    page = (await client.get(path)).text
    form = page.partition('class="editor"')[2].partition("</form>")[0] or page
    fields = {}
    for tag in re.findall(r"<input\b[^>]*>", form):
        attributes = dict(re.findall(r'([a-z-]+)="([^"]*)"', tag))
        if "name" in attributes and " disabled" not in tag and attributes.get("type") != "checkbox":
            fields[unescape(attributes["name"])] = unescape(attributes.get("value", ""))
    for name, options in re.findall(r'<select [^>]*?name="([^"]*)"[^>]*>(.*?)</select>', form):
        chosen = re.search(r'value="([^"]*)" selected', options)
        assert chosen, name
        fields[unescape(name)] = unescape(chosen[1])
    for attributes_text, text in re.findall(r"<textarea ([^>]*)>\n(.*?)</textarea>", form, re.DOTALL):
        name = re.search(r'name="([^"]*)"', attributes_text)
        assert name
        fields[unescape(name[1])] = unescape(text).replace("\n", "\r\n")
    return fields


async def save(client: httpx.AsyncClient, path: str, **changes: str) -> httpx.Response:
    """Open the editor's form, change fields, and send it."""
    fields = await form_of(client, path)
    return await client.post(path, data=fields | changes)


# ── seeing ───────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_each_value_is_shown_with_its_origin_and_since_when_and_a_secret_never(
    visit: Visit, service: Configured
) -> None:
    service.files.secret("defaults__google_cloud_vision__api_key", "AIza-secret")
    service.start(f"{ON}[instances.acme.tensorflow]\nconfidence_threshold = 0.3\n")
    async with visit() as client:
        page = (await client.get("/settings?instance=acme")).text
        assert re.search(r"confidence_threshold</code>.*?<code>0.3</code>.*?\[instances.acme\] file", page)
        assert "2026-05-17T00:00:00+00:00" in page
        assert re.search(r"set <small[^>]*>fingerprint [0-9a-f]{6}<", page)
        for path in ("/settings", "/settings?show=all", "/settings.json", "/settings-edit?of=defaults"):
            text = (await client.get(path)).text
            assert "AIza-secret" not in text
            assert TOKEN not in text
        assert (await client.get("/settings.json?instance=acme")).json()["settings"][THRESHOLD]["value"] == 0.3


async def test_what_a_reload_would_change_is_shown_and_done_by_a_button(visit: Visit, service: Configured) -> None:
    service.start()
    service.files.toml(f"{ON}[defaults]\nlanguage = 'fr'\n")
    async with visit() as client:
        page = (await client.get("/settings")).text
        assert "A reload would change 1 setting." in page
        assert re.search(r"At the next reload: <b><code>fr</code>", page)
        csrf = re.findall(r'name="csrf_token" value="([0-9a-f]{64})"', page)[0]
        assert "read again" in (await client.post("/settings-reload", data={"csrf_token": csrf})).text
        assert service.settings.defaults.language == "fr"


async def test_sources_that_a_reload_would_refuse_are_said_and_nothing_can_be_edited(
    visit: Visit, service: Configured
) -> None:
    service.start()
    service.files.toml(f"{ON}[amqp]\nprefetch = -1\n")
    async with visit() as client:
        page = (await client.get("/settings")).text
        assert "A reload would be refused" in page
        assert "amqp.prefetch = -1: must be" in page
        assert "Edit the service" not in page


async def test_what_is_left_out_of_the_overlay_is_said_with_how_to_remove_it(visit: Visit, service: Configured) -> None:
    service.overlay.parent.mkdir()
    service.overlay.write_text("[defaults]\nlanguage = 'tlh'")
    service.start()
    async with visit() as client:
        page = (await client.get("/settings")).text
        assert "Left out of the overlay" in page
        assert "<code>autotag config unset defaults.language</code> removes it" in page


@pytest.mark.parametrize(
    ("query", "found", "not_found"),
    [
        ("q=relaunches", "maximum_number_of_relaunches", "queue_prefix"),
        ("q=AUTOTAG_STATE_DIR", "state_dir", "queue_prefix"),
        ("q=crash%20first", "", "queue_prefix"),
        ("show=all", "queue_prefix", "Nothing was found"),
        ("q=there-is-no-such-thing", "Nothing was found", "queue_prefix"),
        ("q=%3Cscript%3Ealert(1)%3C/script%3E", "Nothing was found", "<script>alert"),
    ],
)
async def test_settings_are_found_by_name_text_value_and_source(
    visit: Visit, service: Configured, query: str, found: str, not_found: str
) -> None:
    service.start()
    async with visit() as client:
        page = (await client.get(f"/settings?{query}")).text
        assert found in page
        assert not_found not in page


async def test_a_thousand_instances_fit_and_each_is_found(visit: Visit, service: Configured) -> None:
    tables = "".join(f"[instances.tenant-{number:04}]\nlanguage = 'fr'\n" for number in range(1000))
    service.start(ON + tables)
    async with visit() as client:
        for path in ("/settings", "/settings?instance=tenant-07", "/settings?show=changes"):
            assert len((await client.get(path)).content) < 100_000
        page = (await client.get("/settings?instance=tenant-07")).text
        assert re.findall(r">(tenant-\d+)</a>", page)[-1] == "tenant-0723"
        assert "and 76 more" in page
        assert "Settings of tenant-0777" in (await client.get("/settings?instance=tenant-0777")).text
        assert len((await client.get("/settings-edit?instance=tenant-0777")).content) < 60_000


# ── who ──────────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_without_a_token_settings_are_seen_on_the_machine_only_and_changed_by_nobody(
    visit: Visit, service: Configured
) -> None:
    service.start("[http]\neditor = true\n[defaults]\nlanguage = 'fr'\n")
    async with visit(token=None) as client:
        page = (await client.get("/settings")).text
        assert "<code>fr</code>" in page
        assert "set http.token" in page
        assert 'class="editor"' not in (await client.get("/settings-edit")).text
        assert (await client.post("/settings-edit", data={"enabled": "false"})).status_code == 403
    async with visit(ELSEWHERE, token=None) as client:
        assert "<code>fr</code>" not in (await client.get("/settings")).text
        assert (await client.get("/settings.json")).status_code == 401


async def test_nobody_who_has_not_signed_in_sees_or_changes_anything(visit: Visit, service: Configured) -> None:
    service.start()
    async with visit(signed_in=False) as client:
        for path in ("/settings", "/settings-edit"):
            page = (await client.get(path)).text
            assert "Sign in" in page
            assert "state_dir" not in page
        for path in ("/settings-edit", "/settings-undo", "/settings-reload"):
            assert (await client.post(path, data={})).status_code == 403
        assert not service.overlay.exists()
        assert service.done == []


async def test_a_form_of_another_site_or_an_old_page_is_refused(visit: Visit, service: Configured) -> None:
    service.start()
    async with visit() as client:
        fields = await form_of(client, "/settings-edit?of=defaults") | {"defaults.language": "fr"}
        other_site = await client.post(
            "/settings-edit?of=defaults", data=fields, headers={"Sec-Fetch-Site": "cross-site"}
        )
        assert other_site.status_code == 403
        assert (await client.post("/settings-edit?of=defaults", data=fields | {"csrf_token": "0"})).status_code == 403
        assert (await client.post("/settings-edit?of=defaults", data={})).status_code == 403
        assert not service.overlay.exists()


async def test_the_editor_is_off_unless_it_is_switched_on(visit: Visit, service: Configured) -> None:
    service.start(f'[http]\ntoken = "{TOKEN}"\n')
    async with visit() as client:
        assert "http.editor = true" in (await client.get("/settings")).text
        assert 'class="editor"' not in (await client.get("/settings-edit")).text
        page = (await client.get("/")).text
        csrf = re.findall(r'name="csrf_token" value="([0-9a-f]{64})"', page)[0]
        refusal = await client.post("/settings-edit", data={"csrf_token": csrf, "enabled": "false"})
        assert "http.editor = true" in refusal.text
        undo = await client.post("/settings-undo", data={"csrf_token": csrf, "to": "0"})
        assert "http.editor = true" in undo.text
    assert not service.overlay.exists()


async def test_where_the_overlay_cannot_be_written_the_editor_is_off_and_says_so(
    visit: Visit, service: Configured
) -> None:
    service.overlay.parent.write_text("no directory")
    service.start()
    async with visit() as client:
        page = (await client.get("/settings-edit")).text
        assert "Settings cannot be changed here" in page
        assert 'class="editor"' not in page


async def test_a_program_with_the_token_saves_and_reads_what_happened(visit: Visit, service: Configured) -> None:
    service.start()
    async with visit(signed_in=False) as client:
        client.headers.update({"Authorization": f"Bearer {TOKEN}", "Accept": "application/json"})
        fields = await form_of(client, "/settings-edit?instance=acme")
        answer = await client.post("/settings-edit?instance=acme", data={"seen": fields["seen"], THRESHOLD: "0.3"})
        assert answer.json() == {"done": True, "said": "Saved, and in force", "lines": [f"{THRESHOLD} = 0.3"]}
    assert service.threshold == 0.3


# ── changing ─────────────────────────────────────────────────────────────────────────────────────────────────────────


async def test_a_change_is_written_put_in_force_and_undone(visit: Visit, service: Configured) -> None:
    service.start()
    async with visit() as client:
        page = (await save(client, "/settings-edit?instance=acme", **{THRESHOLD: "0.3"})).text
        assert "Saved, and in force" in page
        assert f"{THRESHOLD} = 0.3" in page
        assert service.threshold == 0.3
        assert service.overlay.read_text().splitlines()[-2:] == [
            "[instances.acme.tensorflow]",
            "confidence_threshold = 0.3",
        ]
        assert read_versions(service.overlay)[-1].by == f"status page, {HERE}"
        page = (await client.get("/settings?instance=acme")).text
        undo = await form_of(client, "/settings?instance=acme")
        answer = await client.post("/settings-undo", data={name: undo[name] for name in ("csrf_token", "seen")})
        assert "back to version 0" in answer.text
        assert service.threshold is None


@pytest.mark.parametrize("path", ["/settings-edit", "/settings-edit?of=defaults", "/settings-edit?instance=acme"])
async def test_a_form_that_is_sent_as_it_is_changes_nothing(visit: Visit, service: Configured, path: str) -> None:
    service.start(
        f"""{ON}
[tensorflow]
maximum_number_of_relaunches_time_interval = 12.5
[defaults.labels]
drop = ["a, b", "<script>"]
rename = {{"x = y" = "z", "tab\\tby" = "cat"}}
parents = {{cat = ["pet", "a, b"]}}
thresholds = {{cat = 0.35}}
[instances.acme.labels]
drop = ["[odd", "  ", "two\\nlines"]
rename = {{tabby = "cat", "tiger cat" = "cat"}}
parents = {{cat = ["pet", "animal"], dog = "pet"}}
[instances.acme.microsoft_vision]
api_endpoint = "https://acme.example.org"
confidence_threshold = 0.123456789
"""
    )
    async with visit() as client:
        assert "Nothing was changed" in (await save(client, path)).text
    assert not service.overlay.exists()


@pytest.mark.parametrize(
    ("field", "text", "expected"),
    [
        ("labels.drop", "web site\r\n\r\n a, b \r\n", ("web site", "a, b")),
        ("labels.rename", "tabby = cat\r\ntiger cat=cat", {"tabby": "cat", "tiger cat": "cat"}),
        ("labels.rename", '{"a = b": "c"}', {"a = b": "c"}),
        ("labels.parents", "cat = pet, animal\r\ndog = pet", {"cat": ("pet", "animal"), "dog": ("pet",)}),
        ("labels.thresholds", "cat = 0.4", {"cat": 0.4}),
        ("tensorflow.enabled", "true", True),
        ("language", "fr", "fr"),
        ("maximum_number_of_tags_per_asset", " 5 ", 5),
        ("google_cloud_vision.calls_per_month", "1000", 1000),
    ],
)
async def test_each_kind_of_field_is_read_as_it_was_written_for_people(
    visit: Visit, service: Configured, field: str, text: str, expected: object
) -> None:
    service.start()
    async with visit() as client:
        page = (await save(client, "/settings-edit?instance=acme", **{f"instances.acme.{field}": text})).text
        assert "Saved, and in force" in page
    loaded = service.in_force.loaded
    assert loaded.value(("instances", "acme", *field.split("."))) == expected


@pytest.mark.parametrize(
    ("field", "text", "words"),
    [
        ("tensorflow.confidence_threshold", "3", "Must be a number from 0 to 1."),
        ("tensorflow.confidence_threshold", "<b>", "Must be a number from 0 to 1."),
        ("tensorflow.maximum_parents", "", "Cannot be emptied, since its value is from default."),
        ("labels.rename", "no sign", "Write `name = value` in each line"),
        ("labels.rename", "a = b\r\na = c", "is there twice"),
        ("labels.rename", "{", "Is not JSON"),
        ("microsoft_vision.api_endpoint", "ftp://x", "an http or https address"),
    ],
)
async def test_what_is_refused_is_shown_beside_its_field_with_all_that_was_sent(
    visit: Visit, service: Configured, field: str, text: str, words: str
) -> None:
    service.start()
    async with visit() as client:
        answer = await save(
            client,
            "/settings-edit?instance=acme",
            **{f"instances.acme.{field}": text, "instances.acme.labels.drop": "keep what I wrote"},
        )
        assert answer.status_code == 422
        assert words in unescape(re.sub(r"<[^>]+>", "", answer.text))
        assert "keep what I wrote" in answer.text
        assert "is-wrong" in answer.text
        assert "<b>:" not in answer.text
    assert not service.overlay.exists()
    assert service.done == []


async def test_an_emptied_list_is_an_empty_list_and_the_box_uncovers_the_defaults(
    visit: Visit, service: Configured
) -> None:
    service.start(f"{ON}[defaults.labels]\ndrop = ['web site']\n")
    async with visit() as client:
        path, field = "/settings-edit?instance=acme", "instances.acme.labels.drop"
        await save(client, path, **{field: ""})
        assert service.settings.instances["acme"].labels.drop == ()
        await save(client, path, **{f"inherit {field}": "on"})
        assert "acme" not in service.settings.instances
        assert service.settings.defaults.labels.drop == ("web site",)


async def test_what_the_environment_sets_cannot_be_changed_here_and_says_where(
    visit: Visit, service: Configured
) -> None:
    service.environ["AUTOTAG_DEFAULTS__LANGUAGE"] = "fr"
    service.start()
    async with visit() as client:
        page = (await client.get("/settings-edit?of=defaults")).text
        assert "Set by environment AUTOTAG_DEFAULTS__LANGUAGE, which takes precedence" in page
        answer = await save(client, "/settings-edit?of=defaults", **{"defaults.language": "de"})
        assert "Nothing was changed" in answer.text


async def test_fields_that_the_form_does_not_have_are_not_written(visit: Visit, service: Configured) -> None:
    service.start()
    async with visit() as client:
        answer = await save(client, "/settings-edit", **{"sources.path_roots": "/", "http.editor": "false"})
        assert "Nothing was changed" in answer.text
        assert (await client.get("/settings-edit?instance=..%2F..%2Fetc")).status_code == 404
        assert (await save(client, "/settings-edit?instance=defaults", x="")).status_code in (200, 422)
    assert not service.overlay.exists()


async def test_the_second_of_two_editors_is_refused_and_reads_who_was_first(visit: Visit, service: Configured) -> None:
    service.start()
    async with visit() as first, visit(ELSEWHERE) as second:
        fields = await form_of(second, "/settings-edit?instance=acme")
        await save(first, "/settings-edit?instance=acme", **{THRESHOLD: "0.3"})
        answer = await second.post("/settings-edit?instance=acme", data=fields | {THRESHOLD: "0.4"})
        assert answer.status_code == 422
        assert f"have been changed since you opened the form. The last change is by status page, {HERE}" in answer.text
        assert 'value="0.4"' in answer.text
        assert service.threshold == 0.3
        # What concerns another instance stands in nobody's way
        other = await form_of(second, "/settings-edit?instance=beta")
        await save(first, "/settings-edit?instance=acme", **{THRESHOLD: "0.5"})
        answer = await second.post("/settings-edit?instance=beta", data=other | {"instances.beta.language": "fr"})
        assert "Saved, and in force" in answer.text


async def test_an_undo_of_a_page_that_is_out_of_date_is_refused(visit: Visit, service: Configured) -> None:
    service.start()
    async with visit() as client:
        await save(client, "/settings-edit?instance=acme", **{THRESHOLD: "0.3"})
        undo = await form_of(client, "/settings")
        Editor(service.load, "Ada", NOW).change({tuple(THRESHOLD.split(".")): 0.7})
        answer = await client.post("/settings-undo", data={name: undo[name] for name in ("csrf_token", "seen")})
        assert "changed by Ada" in unescape(answer.text)
    assert "0.7" in service.overlay.read_text()


async def test_what_the_service_cannot_work_with_is_taken_back(visit: Visit, service: Configured) -> None:
    service.start()
    async with visit() as client:
        await save(client, "/settings-edit?instance=acme", **{THRESHOLD: "0.3"})
        service.refuses = "the model does not start"
        fields = {THRESHOLD: "0.4", "instances.acme.google_cloud_vision.api_key": "AIza-new"}
        page = (await save(client, "/settings-edit?instance=acme", **fields)).text
        assert "Taken back: the service could not work with it" in page
        assert "the model does not start" in page
        assert "AIza-new" not in page
    assert "confidence_threshold = 0.3" in service.overlay.read_text()
    assert not list(service.files.secrets_dir.iterdir())


async def test_a_key_is_written_and_removed_and_never_shown(visit: Visit, service: Configured) -> None:
    service.start()
    name, path = "instances.acme.google_cloud_vision.api_key", "/settings-edit?instance=acme"
    file = service.files.secrets_dir / "instances__acme__google_cloud_vision__api_key"
    async with visit() as client:
        page = (await save(client, path, **{name: "AIza-secret"})).text
        assert "AIza-secret" not in page
        assert file.read_text() == "AIza-secret"
        assert file.stat().st_mode & 0o777 == 0o600
        assert service.settings.instances["acme"].google_cloud_vision.api_key == SecretStr("AIza-secret")
        assert read_versions(service.overlay)[-1].what == (f"{name}: another secret",)
        assert "AIza-secret" not in "".join(each.read_text() for each in service.overlay.parent.rglob("*.json"))
        refused = await save(client, path, **{name: "has a space"})
        assert refused.status_code == 422
        assert "has a space" not in refused.text
        assert file.read_text() == "AIza-secret"
        await save(client, path, **{f"inherit {name}": "on"})
        assert not file.exists()


async def test_a_key_of_a_new_instance_is_written_with_what_names_it_or_nothing_is(
    visit: Visit, service: Configured
) -> None:
    service.start()
    path, table = "/settings-edit?instance=Acme", "instances.Acme.google_cloud_vision"
    async with visit() as client:
        refused = await save(client, path, **{f"{table}.enabled": "true", f"{table}.api_key": "not ascii: ü"})
        assert refused.status_code == 422
        assert "Acme" not in service.overlay.read_text()
        assert not list(service.files.secrets_dir.iterdir())
        alone = await save(client, path, **{f"{table}.api_key": "AIza-secret"})
        assert "set something else of its table first" in alone.text
        await save(client, path, **{f"{table}.enabled": "true", f"{table}.api_key": "AIza-secret"})
        found = service.settings.instances["Acme"].google_cloud_vision
        assert (found.enabled, found.api_key) == (True, SecretStr("AIza-secret"))


async def test_without_a_directory_for_secrets_their_fields_say_so(visit: Visit, service: Configured) -> None:
    service.start()
    bare = service.load
    service.load = lambda *, overlay=None: replace(bare(overlay=overlay), secrets_dir=None)  # type: ignore[method-assign]
    async with visit() as client:
        page = (await client.get("/settings-edit?of=defaults")).text
        assert page.count("no directory for secrets is named") == 2


async def test_a_form_that_is_too_large_is_refused_and_changes_nothing(visit: Visit, service: Configured) -> None:
    service.start()
    async with visit() as client:
        answer = await save(client, "/settings-edit?instance=acme", **{"instances.acme.labels.drop": "x" * 300_000})
        assert answer.status_code == 403
    assert not service.overlay.exists()
