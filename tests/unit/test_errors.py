"""What counts as "this machine has run out", however deep the libraries have wrapped it."""

from __future__ import annotations

import errno
import os
import ssl

import pytest

from worker.errors import CannotBeDone, ResourceExhausted, exhausted


@pytest.mark.parametrize("name", ["EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EDQUOT", "ENOBUFS"])
def test_the_systems_errors_that_mean_it(name: str) -> None:
    number = getattr(errno, name)
    found = exhausted(OSError(number, os.strerror(number)))
    assert isinstance(found, ResourceExhausted)
    assert found.reason == "resources_exhausted"
    assert os.strerror(number) in str(found)


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.EACCES, "Permission denied"),
        OSError("All connection attempts failed"),
        BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"),
        ssl.SSLError(1, "wrong version"),
        RuntimeError("another fault"),
        CannotBeDone("it is broken", reason="image_corrupt"),
    ],
)
def test_other_errors_do_not_mean_it(error: BaseException) -> None:
    assert exhausted(error) is None


def test_eagain_means_it_where_the_caller_says_so() -> None:
    assert exhausted(BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), also=(errno.EAGAIN,))


def test_what_an_error_was_raised_from_counts() -> None:
    wrapped = OSError("All connection attempts failed")
    wrapped.__cause__ = ExceptionGroup("several", [OSError(errno.ENETUNREACH, "no"), OSError(errno.EMFILE, "Too many")])
    outer = RuntimeError("cannot connect")
    outer.__cause__ = wrapped
    assert exhausted(outer) is not None


def test_no_memory_and_no_thread_mean_it_too() -> None:
    assert exhausted(MemoryError()) is not None
    assert exhausted(RuntimeError("can't start new thread")) is not None


def test_an_error_that_is_one_already_is_given_back() -> None:
    error = ResourceExhausted("no descriptor")
    assert exhausted(error) is error
