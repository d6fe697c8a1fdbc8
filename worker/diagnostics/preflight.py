"""The preflight check, `autotag check`: examines each part of a service before it is started.

Each part is checked by itself; a result says what is wrong and what to do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from worker.amqp.connection import connected
from worker.amqp.declare import declare, find_missing
from worker.amqp.mark import is_guessable
from worker.amqp.topology import topology
from worker.diagnostics.first_starts import FirstStarts
from worker.engine import Engine, review_providers, wants_model
from worker.errors import AutotagError
from worker.models.catalogue import BUILT_IN, find_package
from worker.models.manifest import ModelMissing
from worker.operations.control import why_not_listening, why_not_writable
from worker.operations.metrics import Metrics
from worker.providers.checks import Checkable, Severity
from worker.providers.registry import make_enabled
from worker.settings import Settings
from worker.supervision.decoder_pool import DecoderPool


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check. `warning`: the service will run, but perhaps not as intended."""

    subject: str
    status: Literal["ok", "warning", "failed"]
    message: str


_STATUS: dict[Severity, Literal["ok", "warning", "failed"]] = {
    Severity.OK: "ok",
    Severity.WARNING: "warning",
    Severity.ERROR: "failed",
}


async def check_service(settings: Settings) -> AsyncIterator[CheckResult]:
    """Check everything that `autotag run` needs, one part after another."""
    checks: tuple[tuple[str, Callable[[Settings], Awaitable[CheckResult]]], ...] = (
        ("switches", _switches),
        ("sources", _sources),
        ("directories", _directories),
        ("rabbitmq", _rabbitmq),
        ("headers", _headers),
        ("decoder", _decoder),
        ("model", _model),
    )
    for subject, check in checks:
        try:
            yield await check(settings)
        except AutotagError as error:
            yield CheckResult(subject, "failed", str(error))
    try:
        for result in _providers(settings):
            yield result
    except AutotagError as error:  # raised by a provider that is not part of Autotag
        yield CheckResult("providers", "failed", str(error))


async def check_instance(settings: Settings, name: str) -> AsyncIterator[CheckResult]:
    """Make one cheap real call to each service whose provider an instance has switched on, and report the outcome."""
    instance = settings.instance(name)
    if instance is None:
        yield CheckResult(name, "warning", "the settings do not know this instance, and `unknown_instances` is skip")
        return
    if name not in settings.instances:
        yield CheckResult(name, "warning", "the settings do not name this instance: the defaults hold for it")
    engine = Engine(settings, None, Metrics())
    checkable = [each for each in engine.providers if each.enabled(instance) and isinstance(each, Checkable)]
    if not checkable:
        yield CheckResult(name, "ok", "no provider that calls a service is on for it")
    try:
        for provider in checkable:
            await provider.start()
            for result in await provider.check(name, instance):
                yield CheckResult(result.provider, _STATUS[result.severity], f"{name}: {result.message}")
    finally:
        await engine.close()


def _providers(settings: Settings) -> Iterator[CheckResult]:
    """What the settings of every instance show by themselves; `check_instance` makes the calls."""
    for result in review_providers(settings, make_enabled(settings)):
        yield CheckResult(result.provider, _STATUS[result.severity], f"{result.instance}: {result.message}")


async def _switches(settings: Settings) -> CheckResult:
    if not settings.enabled:
        return CheckResult("switches", "warning", "`enabled` is off: every event will be answered `skipped`")
    others = make_enabled(settings)
    on = {
        name: ["tensorflow"] * each.tensorflow.enabled + [other.name for other in others if other.enabled(each)]
        for name, each in settings.by_instance().items()
        if each.enabled
    }
    if not any(on.values()):
        message = (
            "no provider is on, so every event will be answered `skipped`; for instance set defaults.tensorflow.enabled"
        )
        return CheckResult("switches", "warning", message)
    return CheckResult(
        "switches", "ok", "; ".join(f"{name}: {', '.join(names) or 'none'}" for name, names in on.items())
    )


async def _sources(settings: Settings) -> CheckResult:
    sources = settings.sources
    unreadable = [str(root) for root in sources.path_roots if not os.access(root, os.R_OK | os.X_OK)]
    if unreadable:
        return CheckResult("sources", "failed", f"not there, or not readable by this user: {', '.join(unreadable)}")
    roots, hosts = ", ".join(map(str, sources.path_roots)), ", ".join(sources.url_allowed_hosts)
    return CheckResult("sources", "ok", f"paths below: {roots or 'none'}; hosts: {hosts or 'none'}; inline: always")


async def _directories(settings: Settings) -> CheckResult:
    problems = []
    if (why := why_not_writable(settings.state_dir)) is not None:
        problems.append(f"counters cannot be kept in {settings.state_dir}: {why}; set `state_dir`")
    if (why := why_not_listening(settings.control_socket)) is not None:
        problems.append(f"no control socket at {settings.control_socket}: {why}; set `control_socket`")
    if problems:
        return CheckResult("directories", "failed", ". ".join(problems))
    return CheckResult("directories", "ok", f"state {settings.state_dir}; control socket {settings.control_socket}")


async def _rabbitmq(settings: Settings) -> CheckResult:
    layout = topology(settings.amqp.queue_prefix, settings.retry.delays_s)
    async with connected(settings.amqp, "autotag-check") as connection:
        await (declare if settings.amqp.declare else find_missing)(connection, layout)
        return CheckResult("rabbitmq", "ok", f"{connection.broker}; {len(layout.queues)} queues as they should be")


async def _headers(settings: Settings) -> CheckResult:
    if is_guessable(settings.amqp):
        message = (
            "the key that marks our own message headers is made of a password that everybody knows: set one for the "
            "broker's user, or amqp.header_key (docs/deployment.md)"
        )
        return CheckResult("headers", "warning", message)
    origin = "made of the broker's password" if settings.amqp.header_key is None else "amqp.header_key"
    return CheckResult("headers", "ok", f"the key that marks our own message headers: {origin}")


async def _decoder(settings: Settings) -> CheckResult:
    starts = FirstStarts()
    engine = Engine(settings, None, Metrics(), starts.observe)
    try:
        pool: DecoderPool = engine.decoders
        await pool.start()
        await asyncio.wait_for(starts.while_one_can_start(pool.wait_ready()), 60)
        hello = next(state.hello for state in pool.states() if state.hello)
    except TimeoutError:
        return CheckResult("decoder", "failed", "no decoder child became ready within 60 s; run with log.level = debug")
    finally:
        await engine.close()
    return CheckResult("decoder", "ok", f"starts; sandbox: {hello.get('sandbox', 'none')}")


async def _model(settings: Settings) -> CheckResult:
    if not wants_model(settings):
        return CheckResult("model", "ok", "not needed: tensorflow is on for no instance")
    name = settings.tensorflow.model
    try:
        package = await asyncio.to_thread(find_package, name, settings.cache_dir)
        await asyncio.to_thread(package.verify)
    except ModelMissing:
        if name in BUILT_IN and (why := why_not_writable(settings.cache_dir)) is not None:
            message = f"{name} is not built yet, and cannot be in {settings.cache_dir}: {why}; set `cache_dir`"
            return CheckResult("model", "failed", message)
        if name in BUILT_IN:
            return CheckResult(
                "model", "warning", f"{name} is not built yet: `autotag model build`, or the first start does it"
            )
        raise
    thresholds = sorted(
        {each.tensorflow.confidence_threshold for each in settings.by_instance().values() if each.tensorflow.enabled}
    )
    return CheckResult("model", "ok", f"{package.identity}, {len(package.labels)} labels; thresholds {thresholds}")
