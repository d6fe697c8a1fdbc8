"""The sources of settings, laid out in a directory of the test's own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from worker.errors import Misconfigured
from worker.settings import LoadedSettings, load_settings


class Sources:
    """Write files, load them, and see what came out. The process's environment plays no part."""

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
        """What loading refuses, all of it."""
        with pytest.raises(Misconfigured) as refusal:
            self.load(environ)
        return str(refusal.value)
