"""How throughput and cost go with what changes: cores, decoders, workers, kinds of image, ways to it, tags, instances.

Every question is answered by short runs of the service, each value of what is varied in turn, in several rounds.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from contestants import PREFETCH, Autotag, Contestant
from limit import LimitProcess, Order
from measuring import paired, shuffled_rounds, summarise
from ports import accepts_connections, free_ports, poll
from processes import Groups, pin
from queues import Queues
from service_under_test import AutotagService, by_path, written_at_s
from throughput import Run, Track
from workloads import Workloads

Row = dict[str, object]
MODEL = "efficientnet-lite0"
INSTANCES = 50


@dataclass(frozen=True, slots=True)
class Place:
    """Where it all happens, and for how long."""

    queues: Queues
    url: str
    folder: Path
    workloads: Workloads
    broker: int | None
    seconds: float
    rounds: int
    seed: int

    def service(
        self,
        settings: Mapping[str, str] = {},
        *,
        cores: Sequence[int] | None = None,
        prefix: str | None = None,
    ) -> AutotagService:
        """A service with the small model, not started yet."""
        return AutotagService(
            self.queues,
            self.url,
            self.folder,
            model=MODEL,
            images=self.workloads.folder,
            cores=cores,
            prefix=prefix,
            settings=settings,
        )


class _Contents:
    """Autotag given other contents than files by path."""

    def __init__(
        self, name: str, service: AutotagService, contents: Callable[[int], list[dict[str, str]]], instances: int = 1
    ) -> None:
        self.name = name
        self.in_hand = PREFETCH
        self._service = service
        self._contents = contents
        self._instances = instances

    def fill(self, _files: Sequence[Path], count: int) -> None:
        """See `Contestant`."""
        self._service.publish(self._contents(count), instances=self._instances)

    def finished_s(self, count: int, within_s: float) -> list[float]:
        """See `Contestant`."""
        return [written_at_s(result) for result in self._service.results(count, within_s)]

    def groups(self) -> Groups:
        """See `Contestant`."""
        return self._service.groups()


def _row(value: object, runs: Sequence[Run]) -> Row:
    """A table's row: the medians over the rounds, with the spread of the rate."""
    groups = runs[0].cpu_ms
    return {
        "value": value,
        "images_per_s": summarise(run.images_per_s for run in runs).as_dict(),
        "cpu_ms": {group: summarise(run.cpu_ms.get(group, 0.0) for run in runs).median for group in groups},
        "own_cpu_ms": summarise(run.own_cpu_ms for run in runs).median,
    }


def _compare(place: Place, contestants: Mapping[Any, Contestant], files: Sequence[Path]) -> list[Row]:
    """Measure several contestants in interleaved rounds; a row for each, in their order."""
    track = Track(place.broker)
    by_name = {str(value): contestant for value, contestant in contestants.items()}
    for contestant in by_name.values():
        track.warm_up(contestant, files)
    runs: dict[str, list[Run]] = {name: [] for name in by_name}
    for order in shuffled_rounds(list(by_name), place.rounds, place.seed):
        for name in order:
            runs[name].append(track.measure(by_name[name], files, place.seconds))
    return [_row(value, runs[str(value)]) for value in contestants]


def decoders(place: Place, numbers: Sequence[int]) -> list[Row]:
    """By number of decoder children."""
    with ExitStack() as stack:
        services = {
            number: Autotag(str(number), stack.enter_context(place.service({"DECODER__CHILDREN": str(number)})))
            for number in numbers
        }
        return _compare(place, services, place.workloads.files("web"))


def workers(place: Place, most: int) -> list[Row]:
    """By number of worker processes that share one queue. They are added one after the other."""
    rows, files = [], place.workloads.files("web")
    with ExitStack() as stack:
        first = stack.enter_context(place.service())
        together = [first]
        for number in range(1, most + 1):
            if number > 1:
                together.append(stack.enter_context(place.service(prefix=first.prefix)))
            everybody = _Several(str(number), together)
            track = Track(place.broker)
            track.warm_up(everybody, files)
            rows.append(_row(number, [track.measure(everybody, files, place.seconds) for _ in range(place.rounds)]))
    return rows


class _Several(Autotag):
    """Several services on one queue, seen as one."""

    def __init__(self, name: str, services: Sequence[AutotagService]) -> None:
        super().__init__(name, services[0])
        self.in_hand = PREFETCH * len(services)
        self._services = tuple(services)

    def groups(self) -> Groups:
        """See `Contestant`."""
        return {
            "parent": lambda: [service.pid for service in self._services],
            "decoders": lambda: [pid for service in self._services for pid in service.children("decoder")],
            "model": lambda: [pid for service in self._services for pid in service.children("model")],
        }


def cores(place: Place, limit_model: str = MODEL) -> list[Row]:
    """By number of cores, service, broker and bare loop all bound to them."""
    rows, files = [], place.workloads.files("web")
    everything = sorted(os.sched_getaffinity(0))
    for number in range(1, len(everything) + 1):
        chosen = everything[:number]
        try:
            if place.broker is not None:
                pin([place.broker], chosen)
            with place.service(cores=chosen) as service, LimitProcess(limit_model, chosen) as limit:
                track = Track(place.broker, number)
                contestant = Autotag(f"cores-{number}", service)
                track.warm_up(contestant, files)
                runs, bare = [], []
                for _ in range(place.rounds):
                    runs.append(track.measure(contestant, files, place.seconds))
                    bare.append(limit.measure(Order(str(files[0].parent), place.seconds)))
            rows.append(
                _row(number, runs)
                | {
                    "limit_images_per_s": summarise(each.images_per_s for each in bare).median,
                    "of_limit": paired([run.images_per_s for run in runs], [each.images_per_s for each in bare]).median,
                }
            )
        finally:
            if place.broker is not None:
                pin([place.broker], everything)
    return rows


def kinds(place: Place, service: AutotagService, limit: LimitProcess, names: Sequence[str]) -> list[Row]:
    """By kind of image, with the bare loop beside each."""
    rows = []
    for name in names:
        files = place.workloads.files(name)
        track, contestant = Track(place.broker), Autotag(f"{service.prefix}-{name}", service)
        track.warm_up(contestant, files)
        runs, bare = [], []
        for _ in range(place.rounds):
            bare.append(limit.measure(Order(str(files[0].parent), place.seconds)))
            runs.append(track.measure(contestant, files, place.seconds))
        rows.append(
            _row(name, runs)
            | {
                "limit_images_per_s": summarise(each.images_per_s for each in bare).median,
                "limit_cpu_ms": summarise(each.cpu_ms for each in bare).median,
                "cost_over_limit": paired([run.own_cpu_ms for run in runs], [each.cpu_ms for each in bare]).median,
                "mean_bytes": round(sum(file.stat().st_size for file in files) / len(files)),
            }
        )
    return rows


def ways(place: Place, service: AutotagService) -> list[Row]:
    """By the way to the image: a path, a URL of a server on this machine (whose time is not counted), or inline."""
    files = place.workloads.files("web")
    inline = [{"base64": base64.b64encode(file.read_bytes()).decode()} for file in files[:100]]
    with _http_server(place.workloads.folder) as address:

        def urls(count: int) -> list[dict[str, str]]:
            return [{"url": f"{address}/web/{files[number % len(files)].name}"} for number in range(count)]

        contestants = {
            "path": _Contents("path", service, lambda count: by_path(files, count)),
            "url": _Contents("url", service, urls),
            "inline": _Contents("inline", service, lambda count: [inline[n % len(inline)] for n in range(count)]),
        }
        return _compare(place, contestants, files)


def tags(place: Place) -> list[Row]:
    """By number of tags in a result: few, and every label that the model has."""
    with ExitStack() as stack:
        services = {
            f"threshold {threshold}": Autotag(
                threshold,
                stack.enter_context(place.service({"DEFAULTS__TENSORFLOW__CONFIDENCE_THRESHOLD": threshold})),
            )
            for threshold in ("0.1", "0.01", "0")
        }
        return _compare(place, services, place.workloads.files("web"))


def instances(place: Place) -> list[Row]:
    """With one instance, and with fifty that each have settings of their own."""
    files = place.workloads.files("web")
    own = {f"INSTANCES__INSTANCE-{n}__TENSORFLOW__CONFIDENCE_THRESHOLD": str(0.1 + n / 1000) for n in range(INSTANCES)}
    with place.service(own) as service:
        contestants = {
            number: _Contents(f"{number}", service, lambda count: by_path(files, count), number)
            for number in (1, INSTANCES)
        }
        return _compare(place, contestants, files)


@contextmanager
def _http_server(folder: Path) -> Iterator[str]:
    """A web server for the photographs, in a process of its own; its address."""
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "http.server", str(port), "--bind", "127.0.0.1", "--directory", str(folder)]
    server = subprocess.Popen(
        [*command, "--protocol", "HTTP/1.1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        poll(lambda: accepts_connections(port), "the web server answers", 20)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.kill()
        server.wait()
