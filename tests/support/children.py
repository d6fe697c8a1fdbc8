"""Pools of scripted children, and the journal of what they did."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from worker.images.content import Content
from worker.supervision.child_handle import ChildSpec
from worker.supervision.decoder_pool import DecoderOptions, DecoderPool
from worker.supervision.lifecycle import Crashed, Notice
from worker.supervision.model_pool import ModelOptions, ModelPool
from worker.supervision.turns import OWN_TURN, Turn

SCRIPT = Path(__file__).with_name("scripted_child.py")


def scripted_spec(journal: Path, **settings: Any) -> ChildSpec:
    """How to run a scripted child, with these settings."""
    return ChildSpec((sys.executable, "-X", "faulthandler", str(SCRIPT)), {"journal": str(journal), **settings})


def launches(journal: Path) -> int:
    """How many children have been started."""
    return len(list(journal.glob("launch-*")))


def job_files(journal: Path) -> list[str]:
    """One name for each job, in order: `job-NUMBER-PID-WORDS`."""
    return sorted(path.name for path in journal.glob("job-*"))


def jobs(journal: Path) -> list[str]:
    """What each job held, in order."""
    return [name.split("-", 3)[3] for name in job_files(journal)]


class NoticeRecorder:
    """Records every notice of a pool."""

    def __init__(self) -> None:
        self.notices: list[tuple[str, Notice]] = []

    def __call__(self, name: str, notice: Notice) -> None:
        self.notices.append((name, notice))

    def crashes(self) -> list[Crashed]:
        """The crashes, in order."""
        return [notice for _, notice in self.notices if isinstance(notice, Crashed)]

    def of(self, kind: type[Notice]) -> list[Notice]:
        """The notices of one kind."""
        return [notice for _, notice in self.notices if isinstance(notice, kind)]


def model_pool(journal: Path, recorder: NoticeRecorder, options: dict[str, Any], **settings: Any) -> ModelPool:
    """A model pool of scripted children."""
    return ModelPool(
        ModelOptions(packages=(journal,), **options), observe=recorder, spec=scripted_spec(journal, **settings)
    )


def decoder_pool(journal: Path, recorder: NoticeRecorder, options: dict[str, Any], **settings: Any) -> DecoderPool:
    """A decoder pool of scripted children."""
    return DecoderPool(DecoderOptions(**options), observe=recorder, spec=scripted_spec(journal, **settings))


def instruction(word: str) -> Content:
    """Content that makes a scripted child do `word` (see `scripted_child.misbehave`)."""
    return Content.from_bytes(word.encode() + b"\0", f"path {word}.jpg")


async def score(pool: ModelPool, word: str, turn: Turn = OWN_TURN) -> list[tuple[int, float]]:
    """Score pixels that make a scripted child do `word`."""
    with instruction(word) as content:
        return await pool.score(content.fd, 0.1, word, turn)
