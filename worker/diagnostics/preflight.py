"""The preflight check, `autotag check`: examines each part of a service before it is started.

Each part is checked by itself; a result says what is wrong and what to do.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from worker.amqp.bindings import FoundBindings, find_bindings
from worker.amqp.connection import connected
from worker.amqp.declare import HOW_TO_SHARE, as_it_is_there, declare, find_missing, levels
from worker.amqp.mark import is_guessable
from worker.amqp.parameters import addresses
from worker.amqp.topology import topology
from worker.diagnostics.first_starts import FirstStarts
from worker.engine import Engine, decoder_memory_for, review_providers, tasks_for, wants_model
from worker.errors import AutotagError
from worker.models.catalogue import BUILT_IN, DETECTORS, OTHER_NAMES, find_package, is_named, require_to_build
from worker.models.manifest import ModelMissing
from worker.models.nanodet_weights import weights_are_in, weights_directory
from worker.models.tensorflow_extra import TensorFlowMissing, require_to_run
from worker.operations.certificates import own_trouble
from worker.operations.control import why_not_listening, why_not_writable
from worker.operations.descriptors import make_room
from worker.operations.metrics import Metrics
from worker.providers.checks import Checkable, Severity
from worker.providers.cloud.budget import make_budget, why_it_does_not_last
from worker.providers.registry import make_enabled, nothing_is_switched_on
from worker.settings import (
    InstanceSettings,
    InstanceSourcesSettings,
    PublishersSettings,
    RetrySettings,
    Settings,
    SourcesSettings,
    buckets_of,
)
from worker.settings.system import SAFE_TOKEN
from worker.sources.proxy import Proxy, unused_variable
from worker.supervision.decoder_pool import DecoderPool
from worker.tagging.confidences import Meanings
from worker.tagging.rules import rules_of


@dataclass(frozen=True, slots=True)
class CheckResult:
    """The result of one check. `warning`: the service will run, but perhaps not as intended."""

    subject: str
    status: Literal["ok", "warning", "failed"]
    message: str


_LOW_CONFIDENCE = 0.4
_STRICTEST = "seccomp"
_MISSING = {
    "none": "no new privileges cannot be given up here: an image that takes a decoder over may do what this user may",
    "limits": "this kernel has no Landlock, or it is turned off (Linux 5.13 has it): an image that takes a decoder "
    "over could open this user's files",
    "landlock": "the filter of system calls could not be installed, or does not hold; is libseccomp2 installed?",
}
"""What keeps a decoder's sandbox from its strictest level, by the level that it reaches."""

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
        ("proxy", _proxy),
        ("directories", _directories),
        ("http", _http),
        ("rabbitmq", _rabbitmq),
        ("bindings", _bindings),
        ("descriptors", _descriptors),
        ("tasks", _tasks),
        ("headers", _headers),
        ("publishers", _publishers),
        ("tags", _tags),
        ("decoder", _decoder),
        ("model", _model),
        ("memory", _memory),
        ("budget", _budget),
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
        yield CheckResult(
            name,
            "warning",
            f"the settings do not know this instance, and `unknown_instances` is {settings.unknown_instances}",
        )
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
        waits = settings.while_nothing_is_switched_on == "wait" and nothing_is_switched_on(settings, others)
        what = "wait in its queue" if waits else "be answered `skipped`"
        message = f"no provider is on, so every event will {what}; for instance set defaults.tensorflow.enabled"
        return CheckResult("switches", "warning", message)
    return CheckResult(
        "switches", "ok", "; ".join(f"{name}: {', '.join(names) or 'none'}" for name, names in on.items())
    )


async def _sources(settings: Settings) -> CheckResult:
    found = {"": settings.sources} | {
        f"{name}: ": settings.sources_of(each)
        for name, each in settings.reachable().items()
        if each.sources != InstanceSourcesSettings()
    }
    roots = dict.fromkeys(root for each in found.values() for root in each.path_roots)
    unreadable = [str(root) for root in roots if not os.access(root, os.R_OK | os.X_OK)]
    if unreadable:
        return CheckResult("sources", "failed", f"not there, or not readable by this user: {', '.join(unreadable)}")
    of_instances = "".join(f"; {name}{_open_to_events(each)}" for name, each in found.items() if name)
    return CheckResult("sources", "ok", f"{_open_to_events(settings.sources)}; inline: always{of_instances}")


def _open_to_events(sources: SourcesSettings) -> str:
    roots, hosts = ", ".join(map(str, sources.path_roots)), ", ".join(sources.url_allowed_hosts)
    credentials = "".join(f"; {each.kind} for {name}" for name, each in sources.credentials.items())
    buckets = "".join(
        f"; bucket {bucket} of {sources.s3[name].instance} at {sources.s3[name].endpoint}"
        for bucket, name in buckets_of(sources.s3)
    )
    return f"paths below: {roots or 'none'}; hosts: {hosts or 'none'}{credentials}{buckets}"


async def _proxy(settings: Settings) -> CheckResult:
    named = {"sources": settings.sources.proxy, "cloud": settings.cloud.proxy}
    proxies = {section: Proxy.of(url) for section, url in named.items() if url is not None}
    for proxy in dict.fromkeys(proxies.values()):
        await proxy.check(settings.cloud.connect_timeout_s)
    if proxies:
        return CheckResult("proxy", "ok", "; ".join(f"{section}: {proxy}" for section, proxy in proxies.items()))
    if (variable := unused_variable()) is not None:
        message = (
            f"none; {variable} is set and not used: where only a proxy leads out, set sources.proxy and cloud.proxy"
        )
        return CheckResult("proxy", "ok", message)
    return CheckResult("proxy", "ok", "none")


async def _directories(settings: Settings) -> CheckResult:
    problems = []
    if (why := why_not_writable(settings.state_dir)) is not None:
        problems.append(f"counters cannot be kept in {settings.state_dir}: {why}; set `state_dir`")
    if (why := why_not_listening(settings.control_socket)) is not None:
        problems.append(f"no control socket at {settings.control_socket}: {why}; set `control_socket`")
    if problems:
        return CheckResult("directories", "failed", ". ".join(problems))
    return CheckResult("directories", "ok", f"state {settings.state_dir}; control socket {settings.control_socket}")


async def _http(settings: Settings) -> CheckResult:
    certificate = settings.http.certificate_file
    if not settings.http.enabled:
        return CheckResult("http", "ok", "off")
    where = f"{settings.http.host}:{settings.http.port}"
    token = settings.http.token
    if token is not None and len(token.get_secret_value()) < SAFE_TOKEN:
        message = (
            f"http.token has less than {SAFE_TOKEN} characters and can be guessed: `openssl rand -hex 16` makes one"
        )
        return CheckResult("http", "warning", message)
    if certificate is None:
        return CheckResult("http", "ok", f"plain HTTP on {where}")
    try:
        trouble = own_trouble(certificate, settings.http.key_file)
    except OSError as error:
        return CheckResult("http", "failed", f"http.certificate_file {certificate} can't be used: {error}")
    if trouble is not None:
        return CheckResult("http", "warning", f"clients will not accept http.certificate_file {certificate}: {trouble}")
    return CheckResult("http", "ok", f"HTTPS on {where}")


async def _rabbitmq(settings: Settings) -> CheckResult:
    layout = topology(settings.amqp.queue_prefix, settings.retry.delays_s)
    async with connected(settings.amqp, "autotag-check") as connection:
        layout = await as_it_is_there(connection, layout)
        differences = await (declare if settings.amqp.declare else find_missing)(connection, layout)
        version = connection.version
    what = [str(connection.broker), f"{len(layout.queues)} queues"]
    if differences:
        what += [difference.what for difference in differences]
        what.append("they are used as they are; to have them as ours, delete them while empty")
    else:
        what[-1] += " as they should be"
    if not layout.shares_results:
        what.append(f"{layout.results_queue} gets all results, also those that others take; {HOW_TO_SHARE}")
    message = "; ".join([*what, str(version), *version.remarks()])
    return CheckResult("rabbitmq", "warning" if differences or not version.supported else "ok", message)


async def _bindings(settings: Settings) -> CheckResult:
    layout = topology(settings.amqp.queue_prefix, settings.retry.delays_s)
    async with connected(settings.amqp, "autotag-check") as connection:
        layout = await as_it_is_there(connection, layout)
        usual = topology(settings.amqp.queue_prefix, (*settings.retry.delays_s, *RetrySettings().delays_s))
        others = {queue.name for queue in usual.queues} - {queue.name for queue in layout.queues}
        unused = await levels(connection, sorted(others))
        found = (
            FoundBindings((), ()) if settings.amqp.declare else await find_bindings(connection, settings.amqp, layout)
        )
    if found.missing:
        names = ", ".join(f"{each.queue} to {each.exchange} with key {each.routing_key!r}" for each in found.missing)
        return CheckResult("bindings", "failed", f"no queue gets what is published there: bind {names}")
    if unused:
        names = ", ".join(f"{queue} ({level.messages} messages)" for queue, level in unused.items())
        message = f"retry queues that retry.delays_s no longer names, to be deleted once they are empty: {names}"
        return CheckResult("bindings", "warning", message)
    if found.unknown:
        names = ", ".join(each.queue for each in found.unknown)
        return CheckResult("bindings", "ok", f"as they should be; not looked at, as they are in use: {names}")
    return CheckResult("bindings", "ok", "declared" if settings.amqp.declare else "as they should be")


async def _descriptors(settings: Settings) -> CheckResult:
    room = make_room(settings.amqp.prefetch)
    if room.message is not None:
        return CheckResult("descriptors", "warning", room.message)
    return CheckResult("descriptors", "ok", f"enough for amqp.prefetch = {room.wanted_prefetch}")


async def _tasks(settings: Settings) -> CheckResult:
    found = tasks_for(settings)
    if found.message is not None:
        return CheckResult("tasks", "failed", found.message)
    left = "no limit" if found.left is None else f"{found.left} may be started"
    return CheckResult("tasks", "ok", f"processes and threads: {left}, {found.needed} are needed")


async def _memory(settings: Settings) -> CheckResult:
    found = decoder_memory_for(settings)
    if found.message is not None:
        return CheckResult("memory", "warning", found.message)
    limit = "no limit" if found.limit_bytes is None else f"{found.limit_bytes >> 20} MiB"
    return CheckResult(
        "memory", "ok", f"{limit}; {found.children} decoders need {found.needed_bytes >> 20} MiB at most"
    )


async def _headers(settings: Settings) -> CheckResult:
    if is_guessable(settings.amqp):
        message = (
            "the key that marks our own message headers is made of a password that everybody knows: set one for the "
            "broker's user, or amqp.header_key (docs/deployment.md)"
        )
        return CheckResult("headers", "warning", message)
    origin = "made of the broker's password" if settings.amqp.header_key is None else "amqp.header_key"
    return CheckResult("headers", "ok", f"the key that marks our own message headers: {origin}")


async def _tags(settings: Settings) -> CheckResult:
    """Whether thresholds and terms are as they were probably meant."""
    reachable = settings.reachable()
    low = [
        name
        for name, each in reachable.items()
        if each.tensorflow.enabled
        and each.tensorflow.tags == "concepts"
        and each.tensorflow.threshold < _LOW_CONFIDENCE
    ]
    if low:
        message = (
            f"tensorflow.confidence_threshold of {', '.join(low)} is below {_LOW_CONFIDENCE}: most are wrong then. "
            "It means calibrated confidences; for the model's scores, as before, set tensorflow.tags = 'labels'"
        )
        return CheckResult("tags", "warning", message)
    unknown = {name: rules_of(each.labels, by_concept=True).unknown_terms for name, each in reachable.items()}
    if any(unknown.values()):
        name, terms = next(pair for pair in unknown.items() if pair[1])
        message = (
            f"labels.only of {name} has {len(terms)} terms that are no concepts, such as {', '.join(terms[:5])}; see "
            "`autotag vocabulary map`"
        )
        return CheckResult("tags", "warning", message)
    files = {name: each.labels for name, each in reachable.items() if each.labels.rules_file is not None}
    named = "".join(f"; {name} has {each.counted()} rules, with {each.rules_file}" for name, each in files.items())
    return CheckResult("tags", "ok", f"thresholds and terms are in order{named}")


async def _publishers(settings: Settings) -> CheckResult:
    """Which instances are bound to who may speak for them."""
    reachable = settings.reachable()
    bound = {name: each.publishers for name, each in reachable.items() if each.publishers != PublishersSettings()}
    if not bound:
        return CheckResult("publishers", "ok", "every publisher may speak for every instance")
    here = addresses(settings.amqp)[0].virtual_host
    elsewhere = [
        name for name, each in bound.items() if each.virtual_hosts is not None and here not in each.virtual_hosts
    ]
    if elsewhere:
        message = (
            f"no event of {', '.join(elsewhere)} is taken on the virtual host {here!r} (`publishers.virtual_hosts`)"
        )
        return CheckResult("publishers", "warning", message)
    if is_guessable(settings.amqp):
        message = "who may speak for an instance can be forged: see headers"
        return CheckResult("publishers", "warning", message)
    free = [name for name in reachable if name not in bound]
    message = f"bound: {', '.join(bound)}"
    return CheckResult(
        "publishers", "ok", f"{message}; every publisher may speak for {', '.join(free)}" if free else message
    )


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
    return sandbox_result(settings, str(hello.get("sandbox", "none")))


def sandbox_result(settings: Settings, level: str) -> CheckResult:
    """What a decoder's level says: anything but the strictest is a warning, with what it lacks."""
    if level == _STRICTEST:
        return CheckResult("decoder", "ok", f"starts; sandbox: {level}")
    missing = "decoder.sandbox is off" if settings.decoder.sandbox == "off" else _MISSING.get(level, _MISSING["none"])
    return CheckResult("decoder", "warning", f"starts; sandbox: {level}, as {missing}")


async def _budget(settings: Settings) -> CheckResult:
    limited = [name for name, each in settings.by_instance().items() if _has_limit(each)]
    if not limited:
        return CheckResult("budget", "ok", "no instance has a limit on the calls of a month")
    where = "on Redis" if settings.cloud.budget_url is not None else f"in {settings.state_dir}"
    if settings.cloud.budget_url is None and (why := why_it_does_not_last(settings)) is not None:
        message = (
            f"`calls_per_month` of {', '.join(limited)} can't be kept: {why}, so each start would begin at 0 again. "
            "Set `cloud.budget_url`, or `state_dir` to a directory on a disk that stays"
        )
        return CheckResult("budget", "failed", message)
    budget = make_budget(settings)
    try:
        await budget.used("check", limited[0])
    finally:
        await budget.close()
    return CheckResult("budget", "ok", f"the calls of a month are counted {where}, for {', '.join(limited)}")


def _has_limit(instance: InstanceSettings) -> bool:
    return any(
        service.enabled and service.calls_per_month is not None
        for service in (instance.google_cloud_vision, instance.microsoft_vision)
    )


async def _model(settings: Settings) -> CheckResult:
    if not wants_model(settings):
        return CheckResult("model", "ok", "not needed: tensorflow is on for no instance")
    results = [await _model_named(name, settings) for name in settings.tensorflow.names]
    worst = max(results, key=lambda each: ("ok", "warning", "failed").index(each.status))
    thresholds = sorted(
        {each.tensorflow.threshold for each in settings.by_instance().values() if each.tensorflow.enabled}
    )
    return CheckResult("model", worst.status, f"{'; '.join(each.message for each in results)}; thresholds {thresholds}")


def _to_be_built(name: str, settings: Settings) -> CheckResult:
    """Of a model of the catalogue that is neither built nor in a data wheel."""
    detector = name in DETECTORS
    left_out: Literal["ok", "failed"] = "ok" if detector and len(settings.tensorflow.names) > 1 else "failed"
    try:
        require_to_build(name)
    except TensorFlowMissing as error:
        return CheckResult("model", left_out, str(error))
    if detector and not weights_are_in(weights_directory(settings.cache_dir)):
        message = f"{name} is left out: `autotag model build {name}` fetches its weights, once"
        return CheckResult("model", left_out, message)
    if (why := why_not_writable(settings.cache_dir)) is not None:
        message = f"{name} is not built yet, and cannot be in {settings.cache_dir}: {why}; set `cache_dir`"
        return CheckResult("model", "failed", message)
    return CheckResult(
        "model", "warning", f"{name} is not built yet: `autotag model build`, or the first start does it"
    )


async def _model_named(name: str, settings: Settings) -> CheckResult:
    try:
        package = await asyncio.to_thread(find_package, name, settings.cache_dir)
        await asyncio.to_thread(package.verify)
        Meanings(package.described_labels, package.manifest)
        require_to_run(package)
    except ModelMissing:
        proper = OTHER_NAMES.get(name, name)
        if proper not in BUILT_IN and proper not in DETECTORS:
            raise
        return _to_be_built(proper, settings)
    message = f"{package.identity}, {len(package.labels)} labels"
    if package.manifest.runtime.runs_programs and not is_named(name):
        message += (
            f"; it is a {package.manifest.runtime}, which is a program: use it only if you trust where it comes from"
        )
        if settings.tensorflow.sandbox == "off":
            message += ", as with tensorflow.sandbox = 'off' nothing keeps it from this machine's files"
        return CheckResult("model", "warning", message)
    return CheckResult("model", "ok", message)
