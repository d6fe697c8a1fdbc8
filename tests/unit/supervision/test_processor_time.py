"""What images have cost a child: measured at a real process, from its first image on."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.support.polling import until
from worker.supervision.processor_time import ProcessorTime, _clock_s

BUSY = "import sys\nfor line in sys.stdin:\n    sum(range(int(line))); print('done', flush=True)"


@pytest.fixture
def child() -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [sys.executable, "-c", BUSY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as child:
        yield child
        child.kill()


def work(child: subprocess.Popen[str], much: int) -> None:
    assert child.stdin is not None
    assert child.stdout is not None
    child.stdin.write(f"{much}\n")
    child.stdin.flush()
    assert child.stdout.readline() == "done\n"


def test_the_mean_is_of_what_was_spent_on_images_alone(child: subprocess.Popen[str]) -> None:
    work(child, 30_000_000)
    before_s = _clock_s(child.pid)
    time = ProcessorTime()
    assert time.per_image_s == 0
    time.begin(child.pid)
    work(child, 3_000_000)
    time.end(child.pid, 4)
    assert 0 < time.per_image_s < before_s / 4
    assert time.per_image_s == pytest.approx((_clock_s(child.pid) - before_s) / 4, rel=0.2)


def test_a_child_that_is_gone_costs_nothing_more(child: subprocess.Popen[str]) -> None:
    time = ProcessorTime()
    time.begin(child.pid)
    child.kill()
    child.wait()
    until(lambda: not _is_there(child.pid), "the process is gone")
    time.end(child.pid, 1)
    time.begin(child.pid)
    time.end(4_000_000, 1)
    assert time.per_image_s == 0


def _is_there(pid: int) -> bool:
    try:
        _clock_s(pid)
    except OSError:
        return False
    return True
