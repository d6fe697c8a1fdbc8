"""Runs the canary: a known picture takes the way of an event's image, at start and every so often, and is judged.

It is bulk work, so that no upload waits for it. It is no event: nothing is published or counted as one.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache, partial
from importlib.resources import files
from pathlib import Path

import structlog

from worker.engine import Active, wants_model
from worker.errors import AutotagError, CannotBeDone
from worker.images.content import Content
from worker.models.manifest import ModelPackage
from worker.operations.health.first_canaries import FirstCanaries
from worker.operations.health.status import CanaryModelStatus, CanaryStatus
from worker.operations.metrics.canary import CanaryMetrics
from worker.operations.metrics.events import uncounted
from worker.providers.tensorflow import TensorFlow
from worker.settings import InstanceSettings
from worker.tagging.canary.expected import CanaryFault, ExpectedTag, Finding, first_tag, judge, known_tag
from worker.tagging.merge import Choice
from worker.tagging.results import Subject
from worker.tagging.tagger import Tagger

_log = structlog.get_logger(__name__)

WITHIN_S = 120.0
"""A canary that takes longer is late. Bulk work that has waited for 30 s goes before all other work."""

_AGAIN_S = 60.0
"""Time to the next after one that was not as expected, if the interval is longer: it shows when all is well again."""

_LOOK_AGAIN_S = 1.0

_SETTINGS = InstanceSettings.model_validate(
    {
        "tensorflow": {
            "enabled": True,
            "tags": "concepts",
            "confidence_threshold": 0.01,
            "specific_threshold": 0.0,
            "maximum_parents": 20,
        }
    }
)
"""Everything that a model says, whatever the instances keep of it."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of a canary. `fault` is the first one of the models, or why none has answered."""

    fault: CanaryFault | None
    message: str
    ended_s: float
    took_s: float
    findings: tuple[Finding, ...] = ()


class _NoAnswer(Exception):
    """No model has said anything about the picture."""

    def __init__(self, fault: CanaryFault, message: str) -> None:
        super().__init__(message)
        self.fault = fault


class Canary:
    """Tags the picture again and again under the settings and with the engine of `use`."""

    def __init__(
        self, metrics: CanaryMetrics, file: Path, is_paused: Callable[[], bool], *, within_s: float = WITHIN_S
    ) -> None:
        """`file`: where it is kept what operators' own models said first."""
        self._metrics = metrics
        self._first = FirstCanaries(file)
        self._is_paused = is_paused
        self._within_s = within_s
        self._active: Active | None = None
        self._changed = asyncio.Event()
        self._last: _Outcome | None = None
        self._tagger: tuple[object, Tagger] | None = None
        """With the models' pool that it is for."""
        self._uncounted = uncounted()

    def use(self, active: Active) -> None:
        """From now on, beginning at once."""
        self._active = active
        self._changed.set()

    def status(self, now_s: float) -> CanaryStatus | None:
        """The last one; None before the first, and where there are none."""
        last = self._last
        if last is None:
            return None
        models = [
            CanaryModelStatus(
                each.model,
                each.expected.name,
                round(each.expected.low, 4),
                round(each.expected.high, 4),
                round(each.value, 4),
                each.fault,
                each.best,
            )
            for each in last.findings
        ]
        return CanaryStatus(last.fault, last.message, round(now_s - last.ended_s, 1), round(last.took_s, 4), models)

    async def run_regularly(self) -> None:
        """Tag the picture again and again, as long as the service runs."""
        while True:
            self._changed.clear()
            try:
                pause_s = await self._run_if_possible()
            except Exception:  # noqa: BLE001 - a fault of ours must not end the canaries to come
                _log.exception("unexpected error in a canary")
                pause_s = _AGAIN_S
            with suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._changed.wait()

    async def _run_if_possible(self) -> float | None:
        """Run one, unless it would wait for something known. Returns the time to the next; None: none is due."""
        active = self._active
        if active is None:
            return None
        if not active.settings.canary.enabled or not wants_model(active.settings) or active.engine.models is None:
            self._forget()
            return None
        if self._is_waiting(active):
            return _LOOK_AGAIN_S
        interval_s = active.settings.canary.interval_s
        outcome = await self._run(active)
        if outcome is None:
            return min(interval_s, _LOOK_AGAIN_S)
        self._last = outcome
        return interval_s if outcome.fault is None else min(interval_s, _AGAIN_S)

    def _is_waiting(self, active: Active) -> bool:
        """Whether an image would wait: events are paused, or children are missing, which is reported by itself."""
        engine = active.engine
        return self._is_paused() or engine.model is None or not (engine.model.ready and engine.decoders.ready)

    async def _run(self, active: Active) -> _Outcome | None:
        """One canary; None if it ended for a reason that says nothing about the models."""
        packages = active.engine.models.packages if active.engine.models is not None else ()
        began_s = time.monotonic()
        try:
            choices = await self._ask(active)
        except _NoAnswer as error:
            return self._failed(packages, error, began_s)
        except TimeoutError:
            if self._is_waiting(active) or active is not self._active:
                return None
            late = _NoAnswer(CanaryFault.LATE, f"it was not tagged within {self._within_s:g} s")
            return self._failed(packages, late, began_s)
        except AutotagError as error:
            _log.info("the canary will be tagged later", why=str(error), reason=error.reason)
            return None
        took_s = time.monotonic() - began_s
        findings = await asyncio.to_thread(self._judge, choices, packages)
        return self._found(findings, took_s)

    async def _ask(self, active: Active) -> Sequence[Choice]:
        """What the models say. Raises _NoAnswer, TimeoutError, or another AutotagError than CannotBeDone."""
        tagger = await self._tagger_of(active)
        # On behalf of an instance that there is: another one would count as a tenant that children are kept free for.
        instance = next(iter(active.settings.instances), "default")
        subject = Subject("the canary", instance, "canary", bulk=True)
        try:
            async with asyncio.timeout(self._within_s):
                with Content.from_bytes(_picture(), "the package") as content:
                    tagged = await tagger.tag(subject, content, _SETTINGS)
        except CannotBeDone as error:
            raise _NoAnswer(CanaryFault.NO_ANSWER, str(error)) from error
        if tagged.result.status == "failed":
            raise _NoAnswer(CanaryFault.NO_ANSWER, tagged.result.message or "the model has failed")
        return tagged.choices

    async def _tagger_of(self, active: Active) -> Tagger:
        """One that asks the local models alone, each by itself, and counts nothing."""
        engine = active.engine
        if engine.models is None or engine.model is None:
            raise _NoAnswer(CanaryFault.NO_ANSWER, "there is no model")
        if self._tagger is None or self._tagger[0] is not engine.model:
            self._forget()
            # In a thread: what all labels mean takes a moment.
            provider = await asyncio.to_thread(partial(TensorFlow, engine.models, engine.model, apart=True))
            self._tagger = (engine.model, Tagger(engine.decoders, (provider,), self._uncounted))
        return self._tagger[1]

    def _judge(self, choices: Sequence[Choice], packages: Sequence[ModelPackage]) -> tuple[Finding, ...]:
        new: dict[str, ExpectedTag] = {}
        findings = []
        for package in packages:
            name = package.manifest.name
            expected = known_tag(package) or self._first.get(package.identity)
            if expected is None:
                expected = new[package.identity] = first_tag(choices, name)
            findings.append(judge(choices, name, expected))
        if new:
            self._first.keep(new)
        return tuple(findings)

    def _found(self, findings: tuple[Finding, ...], took_s: float) -> _Outcome:
        self._metrics.found(findings, took_s)
        wrong = [each for each in findings if each.fault is not None]
        for each in wrong:
            assert each.fault is not None  # noqa: S101 - by the line above
            self._metrics.count(each.fault)
            _log.warning("the canary is wrong", model=each.model, reason=each.fault.value, **_described(each))
        if not wrong:
            log = _log.info if self._last is None or self._last.fault is not None else _log.debug
            log("the canary is as expected", seconds=round(took_s, 3), models=[each.model for each in findings])
        message = "; ".join(map(_sentence, wrong or findings))
        return _Outcome(wrong[0].fault if wrong else None, message, time.monotonic(), took_s, findings)

    def _failed(self, packages: Sequence[ModelPackage], error: _NoAnswer, began_s: float) -> _Outcome:
        ended_s = time.monotonic()
        self._metrics.failed([package.manifest.name for package in packages], ended_s - began_s)
        self._metrics.count(error.fault)
        _log.warning("the canary has no answer", reason=error.fault.value, why=str(error))
        return _Outcome(error.fault, str(error), ended_s, ended_s - began_s)

    def _forget(self) -> None:
        self._last = None
        self._tagger = None
        self._metrics.forget()


def _described(finding: Finding) -> dict[str, object]:
    expected = finding.expected
    return {
        "expected": f"{expected.name} from {expected.low:.3f} to {expected.high:.3f}",
        "found": round(finding.value, 4),
        "surest_of": finding.best,
    }


def _sentence(finding: Finding) -> str:
    expected = finding.expected
    band = f"{expected.low:.3f} to {expected.high:.3f}"
    surest = f"; surest of {finding.best}" if finding.fault is not None else ""
    return f"{finding.model}: {expected.name} {finding.value:.3f} (expected {band}){surest}"


@cache
def _picture() -> bytes:
    return files("worker.tagging.canary").joinpath("picture.jpg").read_bytes()
