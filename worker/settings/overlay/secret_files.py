"""Writing a secret: into the directory of secrets, where it can be replaced and removed, and never shown."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from worker.errors import CannotBeDone, Misconfigured
from worker.settings.load import LoadedSettings
from worker.settings.overlay.atomic import write_whole
from worker.settings.overlay.change import Loader
from worker.settings.schema import SettingKey, dotted, secret_name


def why_no_secrets(loaded: LoadedSettings) -> str | None:
    """Why no secret can be written, in words; None when one can, as it seems."""
    directory = loaded.secrets_dir
    if directory is None:
        return "no directory for secrets is named: start Autotag with --secrets-dir or AUTOTAG_SECRETS_DIR"
    if not directory.is_dir():
        return f"{directory} is no directory"
    return None if os.access(directory, os.W_OK | os.X_OK) else f"{directory} is read-only"


@dataclass(frozen=True, slots=True)
class SecretChanged:
    """A secret that was written or removed. `settings`: with it."""

    settings: LoadedSettings
    file: Path
    before: str | None = field(repr=False)

    @property
    def removed(self) -> bool:
        """Whether there is no secret now."""
        return not self.file.exists()

    def take_back(self) -> None:
        """Put back what was there before. Raises CannotBeDone."""
        try:
            _put(self.file, self.before)
        except OSError as error:
            raise _not_written(self.file, error) from error


def write_secret(load: Loader, key: SettingKey, secret: str | None) -> SecretChanged:
    """Write a secret into a file of its owner's alone, or remove it if it is None.

    One that is refused, or has no effect, is taken back. Raises CannotBeDone.
    """
    before = load()
    file = _file(before, key)
    old = _content(file)
    if secret is None and old is None:
        raise CannotBeDone(
            f"{dotted(key)} is not set in {file.parent}; it comes from {before.origin(key)}",
            reason="setting_not_in_overlay",
        )
    try:
        _put(file, secret)
        after = load()
    except Misconfigured as error:
        _put(file, old)
        raise CannotBeDone(f"not written: {error}", reason="setting_refused") from None
    except OSError as error:
        raise _not_written(file, error) from error
    wins = after.origins.get(key)
    if secret is not None and wins not in (f"secret {file.name}", f"secret {file.name.lower()}"):
        _put(file, old)
        why = (
            f"would have no effect, since {wins} takes precedence; change it there"
            if wins is not None
            else "could not be found again by the name of a file alone; set something else of its table first"
        )
        raise CannotBeDone(f"not written: {dotted(key)} {why}", reason="setting_has_no_effect")
    return SecretChanged(after, file, old)


def _not_written(file: Path, error: OSError) -> CannotBeDone:
    return CannotBeDone(
        f"{file} cannot be written: {error.strerror}; nothing was changed", reason="overlay_not_written"
    )


def _file(loaded: LoadedSettings, key: SettingKey) -> Path:
    if (why := why_no_secrets(loaded)) is not None or loaded.secrets_dir is None:
        raise CannotBeDone(f"not written: {why}", reason="overlay_not_written")
    name = secret_name(key)
    if "/" in name or len(name) > 255 or "__" not in name:
        raise CannotBeDone(
            f"not written: no file can have the name {name!r}; set it in the environment", reason="overlay_not_written"
        )
    return loaded.secrets_dir / name


def _content(file: Path) -> str | None:
    try:
        return file.read_text("utf-8")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CannotBeDone(f"{file} cannot be read: {error.strerror}", reason="overlay_not_written") from error


def _put(file: Path, secret: str | None) -> None:
    if secret is None:
        file.unlink(missing_ok=True)
    else:
        write_whole(file, secret.encode())
