"""What `autotag calibrate` found as settings: a TOML fragment, which may be used as a settings file of its own."""

from __future__ import annotations

import json
import os
import re
import tempfile
from contextlib import suppress
from pathlib import Path

from worker.diagnostics.calibration import Calibrated
from worker.errors import Misconfigured
from worker.messages import DEFAULT_INSTANCE
from worker.models.manifest import Curve
from worker.operations.printable import printable


def fragment(found: Calibrated, *, model: str, instance: str, comment: str) -> str:
    """The curves of `model`, as `tensorflow.model` names it, and the thresholds of an instance, or of all.

    Raises Misconfigured for a model whose name no TOML file can hold.
    """
    table = "defaults" if instance == DEFAULT_INSTANCE else f"instances.{_key(instance)}"
    local = [f"[{table}.tensorflow]", "# The thresholds are meant for these.", 'tags = "concepts"']
    local += [f"confidence_threshold = {found.confidence.threshold:g}"] if found.confidence is not None else []
    local += [f"specific_threshold = {found.specific.threshold:g}"] if found.specific is not None else []
    lines = [
        f"# {printable(comment)}",
        f"[tensorflow.calibration.{_key(model)}]",
        f"label = {_curve(found.calibration.label)}",
        f"parent = {_curve(found.calibration.parent)}",
        "",
        *local,
    ]
    return "\n".join(lines) + "\n"


def why_not_writable(path: Path, *, force: bool) -> str | None:
    """Why a file cannot be written there, found out before the long work; None if it probably can."""
    if os.path.lexists(path) and not force:
        return f"{path} is there already; --force overwrites it"
    if path.is_dir():
        return f"{path} is a directory"
    if not path.parent.is_dir():
        return f"{path.parent} is no directory"
    if not os.access(path.parent, os.W_OK):
        return f"{path.parent} may not be written to"
    return None


def write(path: Path, text: str, *, force: bool) -> None:
    """Write a file as a whole or not at all; one that is there is replaced only by `force`. Raises Misconfigured."""
    new = ""
    try:
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", dir=path.parent, delete=False) as file:
            new = file.name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(new, 0o666 & ~umask)  # a temporary file is its owner's alone; this holds no secret
        if force:
            os.replace(new, path)
        else:
            os.link(new, path)  # fails if it is there by now, which a replacement does not
    except FileExistsError:
        raise Misconfigured(f"{path} is there already; --force overwrites it") from None
    except OSError as error:
        raise Misconfigured(f"{path} cannot be written: {error.strerror}") from error
    finally:
        with suppress(OSError):
            os.unlink(new)


def _curve(curve: Curve) -> str:
    return f"{{ slope = {curve.slope:g}, offset = {curve.offset:g} }}"


def _key(name: str) -> str:
    """A key of TOML, quoted where it has to be."""
    if re.fullmatch(r"[A-Za-z0-9_-]+", name):
        return name
    try:
        name.encode()
    except UnicodeEncodeError:
        raise Misconfigured(f"{name} is no UTF-8, and cannot be named in settings") from None
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
