"""A file system that never answers: as a dead file server looks to a program that opens a file on it."""

from __future__ import annotations

import ctypes
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MNT_DETACH = 2


@contextmanager
def hung_file_system(at: Path) -> Iterator[Path]:
    """A FUSE file system, mounted at a new directory, whose server reads no request. At the end all calls fail."""
    libc = ctypes.CDLL(None, use_errno=True)
    at.mkdir()
    try:
        device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        pytest.skip(f"there is no FUSE here: {error}")
    options = f"fd={device},rootmode={stat.S_IFDIR:o},user_id=0,group_id=0,allow_other".encode()
    if libc.mount(b"hung", os.fsencode(at), b"fuse", 0, options):
        os.close(device)
        pytest.skip(f"nothing may be mounted here: {os.strerror(ctypes.get_errno())}")
    try:
        yield at
    finally:
        libc.umount2(os.fsencode(at), _MNT_DETACH)
        os.close(device)
