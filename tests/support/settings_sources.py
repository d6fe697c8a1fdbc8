"""Writes the sources of settings into a directory of the test's own, and loads them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from worker.errors import Misconfigured
from worker.settings import LoadedSettings, load_settings


class SourceFiles:
    """A settings file, a `.env` file and a secrets directory. The process's environment is never read."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.secrets_dir = directory / "secrets"

    def toml(self, text: str) -> None:
        (self.directory / "autotag.toml").write_text(text, "utf-8")

    def dotenv(self, text: str) -> None:
        (self.directory / ".env").write_text(text, "utf-8")

    def secret(self, name: str, text: str) -> None:
        self.secrets_dir.mkdir(exist_ok=True)
        (self.secrets_dir / name).write_text(text, "utf-8")

    def load(self, environ: Mapping[str, str] | None = None) -> LoadedSettings:
        secrets_dir = self.secrets_dir if self.secrets_dir.exists() else None
        return load_settings(secrets_dir=secrets_dir, environ=environ or {}, directory=self.directory)

    def complaint(self, environ: Mapping[str, str] | None = None) -> str:
        """The whole text of the error that loading raises."""
        with pytest.raises(Misconfigured) as refusal:
            self.load(environ)
        return str(refusal.value)
