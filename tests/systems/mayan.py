"""A real Mayan EDMS (PyPI: `mayan-edms`): installed and set up once, started with a copy of that, on loopback only.

Documents, tags and workflows are made over its REST API, as its users do. A workflow of Mayan's own posts each
new picture to the connector: its states and triggers are those an administrator would make on its pages.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from platformdirs import user_cache_path
from ports import free_ports

from tests.support.polling import until
from tests.systems.programs import apt_install, environment_with

VERSION = "4.12.2"
USER, PASSWORD = "admin", "mayan-MARKER-password"
_BUILD_PACKAGES = ("gcc", "libldap2-dev", "libsasl2-dev", "libpq-dev", "libmagic1", "python3-dev")
_SETTINGS = Path(__file__).with_name("mayan_settings.py")
_ATTEMPTS, _LOCKED = 10, 500
_TAG_COLOUR = "#808080"
_NEW_PICTURE = "documents.document_version_created"
"""Mayan's event once a file has been read, its type is known and a version of the document is made of it."""


class Mayan:
    """What people do in one running Mayan, as its administrator."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=f"{url}/api/v4", auth=(USER, PASSWORD), timeout=60)

    def upload(self, picture: Path) -> str:
        """Upload a picture as a document of its own; the document's id."""
        with picture.open("rb") as file:
            document = self._call("POST", "/documents/upload/", data={"document_type_id": "1"}, files={"file": file})
        return str(document["id"])

    def replace(self, document_id: str, picture: Path) -> None:
        """Upload a new picture for a document, in place of the one it has."""
        with picture.open("rb") as file:
            self._call(
                "POST",
                f"/documents/{document_id}/files/",
                data={"action_name": "replace", "filename": picture.name},
                files={"file_new": file},
            )

    def delete(self, document_id: str) -> None:
        """Put a document into the bin, and empty that of it."""
        self._call("DELETE", f"/documents/{document_id}/")
        self._call("DELETE", f"/trashed_documents/{document_id}/")

    def tags(self, document_id: str) -> set[str]:
        """The labels of all tags of a document."""
        return {tag["label"] for tag in self._pages(f"/documents/{document_id}/tags/")}

    def attach(self, document_id: str, label: str) -> None:
        """Give a document a tag, as a person does; the tag is made if it is new."""
        ids = {tag["label"]: tag["id"] for tag in self._pages("/tags/")}
        if label not in ids:
            ids[label] = self._call("POST", "/tags/", json={"label": label, "color": _TAG_COLOUR})["id"]
        self._call("POST", f"/documents/{document_id}/tags/attach/", json={"tag": ids[label]})

    def remove(self, document_id: str, label: str) -> None:
        """Take a tag from a document, as a person does."""
        ids = {tag["label"]: tag["id"] for tag in self._pages(f"/documents/{document_id}/tags/")}
        self._call("POST", f"/documents/{document_id}/tags/remove/", json={"tag": ids[label]})

    def call_for_new_pictures(self, url: str, token: str) -> None:
        """Make a workflow that posts to `url` whenever a document has got a picture: its first one, or another."""
        at = "/workflow_templates/"
        workflow = self._call("POST", at, json={"label": "Autotag", "internal_name": "autotag", "auto_launch": True})
        at += f"{workflow['id']}/"
        self._call("POST", f"{at}document_types/add/", json={"document_type_id": 1})
        new, tagged = (
            self._call("POST", f"{at}states/", json={"label": label, "initial": initial, "completion": 0})["id"]
            for label, initial in (("New", True), ("Sent to Autotag", False))
        )
        for label, origin in (("first picture", new), ("another picture", tagged)):
            states = {"label": label, "origin_state_id": origin, "destination_state_id": tagged}
            transition = self._call("POST", f"{at}transitions/", json=states)["id"]
            self._call("POST", f"{at}transitions/{transition}/triggers/", json={"event_type_id": _NEW_PICTURE})
        action = {
            "label": "Send to Autotag",
            "enabled": True,
            "when": 1,  # on entry to the state
            "backend_path": "mayan.apps.document_states.workflow_actions.HTTPAction",
            "backend_data": json.dumps(_request(url, token)),
        }
        self._call("POST", f"{at}states/{tagged}/actions/", json=action)

    def is_up(self) -> bool:
        """Whether it answers."""
        try:
            return self._client.get("/document_types/").status_code == 200
        except httpx.HTTPError:
            return False

    def close(self) -> None:
        self._client.close()

    def _pages(self, path: str) -> Iterator[dict[str, Any]]:
        page: str | None = f"{path}?page_size=100"
        while page is not None:
            found = self._call("GET", page)
            yield from found["results"]
            page = found["next"]

    def _call(self, method: str, path: str, **options: Any) -> Any:
        for _ in range(_ATTEMPTS):  # its database, SQLite, is locked now and then, which it answers with 500
            answer = self._client.request(method, path, headers={"Accept": "application/json"}, **options)
            if answer.status_code != _LOCKED or not path.startswith(("/documents/", "/tags/")) or "files" in options:
                break
            time.sleep(0.5)
        assert answer.is_success, f"Mayan: {method} {path}: {answer.status_code}: {answer.text[:200]}"
        return answer.json() if answer.content else None


def _request(url: str, token: str) -> dict[str, object]:
    document = "workflow_instance.document"
    fields = {"document_id": f"{{{{ {document}.pk }}}}", "file_id": f"{{{{ {document}.file_latest.pk }}}}"}
    texts = {"checksum": "file_latest.checksum", "mime_type": "file_latest.mimetype", "label": "label"}
    pairs = [f'"{name}": {value}' for name, value in fields.items()]
    pairs += [f'"{name}": "{{{{ {document}.{value}|escapejs }}}}"' for name, value in texts.items()]
    return {
        "url": url,
        "method": "POST",
        "headers": json.dumps({"Content-Type": "application/json", "Authorization": f"Bearer {token}"}),
        "payload": f"{{{', '.join(pairs)}}}",
        "timeout": "10",
        "verify_certificate": True,
        "username": "",
        "password": "",
    }


@contextmanager
def mayan(folder: Path) -> Iterator[Mayan]:
    """A Mayan that has been set up in `folder`, an empty one, and runs for the length of the block."""
    place = _installed()
    shutil.copytree(place / "set-up", folder, dirs_exist_ok=True)
    for settings in (folder / "media").glob("*.yml"):  # which name the database by its whole path
        settings.write_text(settings.read_text().replace(str(place / "set-up"), str(folder)))
    (port,) = free_ports(1)
    options = ["--workers=1", "--threads=4", "--timeout=120", f"--bind=127.0.0.1:{port}", "--no-control-socket"]
    command = [str(place / "bin" / "gunicorn"), *options, "mayan.wsgi"]
    with (folder / "log").open("ab") as log:
        environment = _environment(folder)
        with subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log) as server:
            system = Mayan(f"http://127.0.0.1:{port}")
            try:
                until(system.is_up, f"Mayan answers; its log is {folder / 'log'}", within_s=120)
                yield system
            finally:
                system.close()
                server.terminate()
                server.wait(20)


def _environment(folder: Path) -> dict[str, str]:
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "PYTHONPATH": str(folder),
        "DJANGO_SETTINGS_MODULE": _SETTINGS.stem,
        "MAYAN_MEDIA_ROOT": str(folder / "media"),
        "MAYAN_OCR_AUTO_OCR": "false",
        "MAYAN_FILE_METADATA_AUTO_PROCESS": "false",
        "PYTHONWARNINGS": "ignore",
    }


_SET_PASSWORD = """
import sys, django
django.setup()
from django.contrib.auth import get_user_model
user = get_user_model().objects.get(username=sys.argv[1])
user.set_password(sys.argv[2])
user.save()
"""


def _installed() -> Path:
    """A virtual environment with Mayan in it, and its first setup in the folder `set-up`; kept for further runs."""
    name = f"mayan-edms-{VERSION}"
    if not (user_cache_path("autotag") / "systems" / name).exists():
        apt_install(*_BUILD_PACKAGES)
    place = environment_with(name, f"mayan-edms=={VERSION}")
    if not (place / "is-set-up").exists():
        shutil.rmtree(place / "set-up", ignore_errors=True)
        _set_up(place)
        (place / "is-set-up").touch()
    return place


def _set_up(place: Path) -> None:
    folder = place / "set-up"
    folder.mkdir()
    shutil.copy(_SETTINGS, folder)
    with (folder / "log").open("wb") as log:
        first = [str(place / "bin" / "mayan-edms.py"), "common_initial_setup", "--force"]
        then = [str(place / "bin" / "python"), "-c", _SET_PASSWORD, USER, PASSWORD]
        # The first ends with 1 where JavaScript for its pages can't be fetched, which the REST API does not need.
        for command, check in ((first, False), (then, True)):
            subprocess.run(
                command, env=_environment(folder), cwd=folder, stdout=log, stderr=log, check=check, timeout=600
            )
