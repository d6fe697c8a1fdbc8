"""`make bench`: measures everything in one run, prints tables and writes `bench/out/results.json`.

    python bench/run.py [--quick] [--only SECTION…] [--rounds N] [--seconds N] [--seed N]

AUTOTAG_AMQP__URL names the broker; `scripts/private_broker.py` sets it. Sections: throughput (with latency, recovery
and memory of the same services), scaling, alternatives. With `--only`, what the other sections found before is kept.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "scripts"))  # its helpers are scripts too, and import each other by bare name

import footprint  # noqa: E402
import latency  # noqa: E402
import recovery  # noqa: E402
import report  # noqa: E402
import scaling  # noqa: E402
import workloads  # noqa: E402
from contestants import KINDS, REQUIREMENTS, Autotag, Contestant, Served, enter_peers  # noqa: E402
from environments import EnvironmentNotMadeError, python_of  # noqa: E402
from limit import STAGES, LimitProcess, Order  # noqa: E402
from measuring import paired, shuffled_rounds, summarise  # noqa: E402
from processes import busy_s, listener  # noqa: E402
from queues import Queues  # noqa: E402
from service_under_test import AutotagService  # noqa: E402
from throughput import Run, Track  # noqa: E402

from worker.models.build import ensure_model  # noqa: E402
from worker.settings import load_settings  # noqa: E402

OUT = ROOT / "bench" / "out"
MODELS = {"lite0": "efficientnet-lite0", "lite2": "efficientnet-lite2"}
SECTIONS = ("throughput", "scaling", "alternatives")
LOADS = (0.1, 0.5, 0.9)
QUIET_SHARE = 0.1
USUAL_PEERS = 5
"""The first so many of KINDS serve the model as is usual; the others as an expert in TensorFlow would."""


@dataclass(frozen=True, slots=True)
class Plan:
    """How long everything lasts."""

    rounds: int
    seconds: float
    latency_s: float
    kills: int
    growth_images: int
    backlog: int
    scaling_rounds: int
    scaling_seconds: float
    all_peers: bool
    all_scaling: bool
    seed: int


QUICK = Plan(3, 1.5, 4.0, 3, 2_000, 5_000, 1, 1.5, all_peers=False, all_scaling=False, seed=0)
FULL = Plan(5, 3.0, 10.0, 5, 20_000, 100_000, 2, 2.5, all_peers=True, all_scaling=True, seed=0)


@dataclass(slots=True)
class Bench:
    """One run: what it has to hand, and what it has found so far."""

    plan: Plan
    queues: Queues
    url: str
    folder: Path
    pictures: workloads.Workloads
    broker: int | None
    results: dict[str, Any]

    def service(self, model: str, settings: Mapping[str, str] = {}, prefix: str | None = None) -> AutotagService:
        """A service, not started yet."""
        return AutotagService(
            self.queues,
            self.url,
            self.folder,
            model=MODELS[model],
            images=self.pictures.folder,
            settings=settings,
            prefix=prefix,
        )

    @contextmanager
    def step(self, what: str, *, vital: bool = False) -> Iterator[None]:
        """Say what is being measured, and how long that took.

        What fails is noted, and the run goes on without it; unless it is `vital`, because others rest on it.
        """
        began_s = time.monotonic()
        print(f"bench: {what} …", file=sys.stderr, flush=True)
        try:
            yield
        except (TimeoutError, RuntimeError, ValueError) as error:
            if vital:
                raise
            self.failed(what, error)
        print(f"bench: {what}: {time.monotonic() - began_s:.0f} s", file=sys.stderr, flush=True)

    def failed(self, what: str, error: Exception) -> None:
        """Note that something could not be measured."""
        self.results["failed"][what] = str(error)
        print(f"bench: {what} failed: {error}", file=sys.stderr, flush=True)


# ── throughput, and what the same processes show besides ─────────────────────────────────────────────────────────────


def throughput(bench: Bench) -> None:
    """Everybody in interleaved rounds; then latency, memory, growth and recovery of Autotag's services."""
    files, ratios = bench.pictures.files("web"), bench.results.setdefault("ratios", {})
    with ExitStack() as stack:
        services = {
            model: stack.enter_context(bench.service(model, recovery.NO_LIMIT | footprint.NO_RECYCLING))
            for model in MODELS
        }
        limits = {model: stack.enter_context(LimitProcess(name)) for model, name in MODELS.items()}
        contestants: dict[str, Contestant] = {
            f"autotag_{model}": Autotag(f"autotag_{model}", service) for model, service in services.items()
        }
        with ExitStack() as others:
            with bench.step("starting the competitors", vital=True):
                contestants |= _peers(bench, others)
            found = _rounds(bench, contestants, limits)
        bench.results["throughput"] = {name: _summary(runs) for name, runs in found.items()}
        rates = {name: [run.images_per_s for run in runs] for name, runs in found.items()}
        for model in MODELS:
            ratios[f"limit_{model}"] = paired(rates[f"autotag_{model}"], rates[f"limit_{model}"]).median
            costs = [[run.own_cpu_ms for run in found[f"{who}_{model}"]] for who in ("limit", "autotag")]
            ratios[f"cpu_{model}"] = paired(*costs).median
        for name in contestants:
            if not name.startswith("autotag") and name in rates:
                ratios[f"peer_{name}"] = paired(rates["autotag_lite0"], rates[name]).median
        with bench.step("stages of the bare limit", vital=True):
            _stages(bench, limits)
        capacities = {model: summarise(rates[f"autotag_{model}"]).median for model in MODELS}
        with bench.step("latency"):
            _latency(bench, services, limits, capacities)
        bench.results["memory"] = {model: footprint.resident(service) for model, service in services.items()}
        bench.results["rss_mb"] = bench.results["memory"]["lite2"]
        with bench.step(f"growth over {bench.plan.growth_images} images"):
            within_s = 60 + 10 * bench.plan.growth_images / capacities["lite0"]
            bench.results["growth"] = asdict(
                footprint.growth(services["lite0"], files, bench.plan.growth_images, within_s)
            )
        with bench.step("recovery"):
            _recovery(bench, services["lite2"], capacities["lite2"])
    with bench.step("cold starts"):
        _cold_starts(bench)


def _peers(bench: Bench, stack: ExitStack) -> dict[str, Contestant]:
    """The competitors that could be started."""
    kinds = KINDS if bench.plan.all_peers else KINDS[:USUAL_PEERS]
    try:
        python = python_of("peers", REQUIREMENTS, OUT)
    except EnvironmentNotMadeError as error:
        print(f"bench: no competitors: {error}", file=sys.stderr)
        return {}
    first = bench.pictures.files("web")[0]
    peers = enter_peers(stack, kinds, bench.queues, bench.url, python, _served(), bench.folder, first)
    return {peer.name: peer for peer in peers}


def _served() -> Served:
    """The small model in every form that a competitor takes."""
    cache_dir = load_settings().settings.cache_dir
    name = MODELS["lite0"]
    floating = ensure_model(f"{name}-float", cache_dir)
    keras_file = OUT / "models" / f"{name}-{floating.identity.rpartition('@')[2]}.keras"
    if not keras_file.is_file():
        keras_file.parent.mkdir(parents=True, exist_ok=True)
        writer = [sys.executable, str(ROOT / "bench" / "peers" / "keras_model.py"), name, str(keras_file)]
        subprocess.run(writer, check=True, capture_output=True, timeout=300)
    return Served(floating.model_path, keras_file, ensure_model(name, cache_dir))


def _rounds(bench: Bench, contestants: dict[str, Contestant], limits: dict[str, LimitProcess]) -> dict[str, list[Run]]:
    """Runs by name, one for each round. Who fails is left out from then on, and said so."""
    files = bench.pictures.files("web")
    track = Track(bench.broker)
    failed: set[str] = set()
    with bench.step("warming up", vital=True):
        for contestant in contestants.values():
            track.warm_up(contestant, files)
    names = [*contestants, *(f"limit_{model}" for model in limits)]
    found: dict[str, list[Run]] = {name: [] for name in names}
    for number, order in enumerate(shuffled_rounds(names, bench.plan.rounds, bench.plan.seed), start=1):
        with bench.step(f"round {number} of {bench.plan.rounds}", vital=True):
            for name in order:
                if name in failed:
                    continue
                try:
                    found[name].append(_run(bench, track, name, contestants, limits))
                except TimeoutError as error:
                    failed.add(name)
                    bench.failed(name, error)
    return {name: runs for name, runs in found.items() if len(runs) == bench.plan.rounds}


def _run(
    bench: Bench,
    track: Track,
    name: str,
    contestants: dict[str, Contestant],
    limits: dict[str, LimitProcess],
) -> Run:
    files = bench.pictures.files("web")
    if name in contestants:
        return track.measure(contestants[name], files, bench.plan.seconds)
    began_s, busy = time.monotonic(), busy_s()
    measured = limits[name.removeprefix("limit_")].measure(Order(str(files[0].parent), bench.plan.seconds))
    spent_s = busy_s() - busy - measured.cpu_ms * measured.images / 1000
    share = max(0.0, spent_s) / ((time.monotonic() - began_s) * len(os.sched_getaffinity(0)))
    return Run(measured.images_per_s, measured.images, measured.seconds, {"all": measured.cpu_ms}, share)


def _summary(runs: list[Run]) -> dict[str, Any]:
    groups = runs[0].cpu_ms
    return {
        "images_per_s": summarise(run.images_per_s for run in runs).as_dict(),
        "images_per_cpu_s": {
            group: 1000 / cost for group in groups if (cost := summarise(run.cpu_ms[group] for run in runs).median) > 0
        },
        "cpu_ms": {group: summarise(run.cpu_ms[group] for run in runs).median for group in groups},
        "own_cpu_ms": summarise(run.own_cpu_ms for run in runs).median,
        "foreign_share": summarise(run.foreign_share for run in runs).median,
        "runs": [asdict(run) for run in runs],
    }


def _stages(bench: Bench, limits: dict[str, LimitProcess]) -> None:
    """What each stage of the bare loop costs alone, in interleaved rounds with the whole."""
    folder, seconds = str(bench.pictures.folder / "web"), bench.plan.seconds / 2
    stages, account = {}, {}
    for model, limit in limits.items():
        costs: dict[str, list[float]] = {name: [] for name in (*STAGES, "all")}
        placed: list[dict[str, float]] = []
        for order in shuffled_rounds(list(costs), bench.plan.rounds, bench.plan.seed):
            for name in order:
                measured = limit.measure(Order(folder, seconds, name))
                costs[name].append(measured.cpu_ms)
                placed += [measured.in_place_ms] if measured.in_place_ms else []
        medians = {name: summarise(found).median for name, found in costs.items()}
        whole_ms = medians.pop("all")
        explained = paired([sum(each) for each in zip(*(costs[stage] for stage in STAGES), strict=True)], costs["all"])
        stages[model] = {
            "cpu_ms": medians,
            "in_place_ms": {stage: summarise(each[stage] for each in placed).median for stage in STAGES},
            "sum_ms": sum(medians.values()),
            "whole_ms": whole_ms,
            "explained": explained.median,
        }
        account[model] = {
            "service_ms": bench.results["throughput"][f"autotag_{model}"]["cpu_ms"],
            "limit_ms": {
                "decoders": medians["open"] + medians["decode"],
                "model": medians["infer"] + medians["confidences"],
            },
        }
    bench.results["stages"], bench.results["account"] = stages, account


def _latency(
    bench: Bench,
    services: dict[str, AutotagService],
    limits: dict[str, LimitProcess],
    capacities: dict[str, float],
) -> None:
    """At three loads, with the bare loop's time for one image taken right before each."""
    files = bench.pictures.files("web")
    found: list[dict[str, Any]] = []
    for model in reversed(MODELS) if bench.plan.all_scaling else ("lite2",):
        for number, load in enumerate(LOADS):
            rate_per_s = capacities[model] * load
            order = Order(str(files[0].parent), bench.plan.latency_s / 4, one_at_a_time=True)
            hot = limits[model].measure(order)
            bare = limits[model].measure(replace(order, pause_s=1 / rate_per_s))
            taken = latency.measure(
                services[model], bench.url, files, rate_per_s, bench.plan.latency_s, bench.plan.seed + number
            )
            found.append(
                asdict(taken)
                | {"model": model, "load": load, "bare_ms": bare.median_ms, "bare_without_pauses_ms": hot.median_ms}
            )
    bench.results["latency"] = found
    default = {each["load"]: each for each in found if each["model"] == "lite2"}
    bench.results["ratios"] |= {
        "p50_idle": default[0.1]["p50_ms"] / default[0.1]["bare_ms"],
        "p99_half": default[0.5]["p99_ms"] / default[0.5]["bare_ms"],
    }


def _recovery(bench: Bench, without_spare: AutotagService, capacity: float) -> None:
    files = bench.pictures.files("web")
    found: dict[str, dict[str, Any]] = {}
    with bench.service("lite2", {"TENSORFLOW__SPARE": "true"} | recovery.NO_LIMIT) as with_spare:
        for name, service in (("no", without_spare), ("yes", with_spare)):
            measured = recovery.measure(service, files, capacity, bench.plan.kills)
            found[name] = {
                "gap_s": summarise(measured.gap_s).as_dict(),
                "usual_gap_s": measured.usual_gap_s,
            }
            if service is without_spare:  # with a spare, no image waits for the successor
                found[name]["recovery_s"] = summarise(measured.recovery_s).as_dict()
    bench.results["recovery"] = found
    bench.results["recovery_s"] = found["no"]["recovery_s"]["median"]


def _cold_starts(bench: Bench) -> None:
    files = bench.pictures.files("web")

    def start(waiting: int) -> footprint.ColdStart:
        return footprint.cold_start(
            lambda prefix: bench.service("lite0", prefix=prefix),
            files,
            waiting,
            bench.broker,
            look_after_s=bench.plan.seconds,
        )

    bench.results["cold_start"] = [asdict(start(waiting)) for waiting in (10, bench.plan.backlog)]


# ── scaling ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def scale(bench: Bench) -> None:
    """How throughput and cost go with what changes."""
    plan = bench.plan
    place = scaling.Place(
        bench.queues,
        bench.url,
        bench.folder,
        bench.pictures,
        bench.broker,
        plan.scaling_seconds,
        plan.scaling_rounds,
        plan.seed,
    )
    found = bench.results.setdefault("scaling", {})
    kinds = ("web", "1mp", "12mp", "24mp", "collage24", "png") if plan.all_scaling else ("1mp", "24mp")
    with place.service() as service, LimitProcess(scaling.MODEL) as limit:
        with bench.step("kinds of image", vital=True):
            found["kinds"] = scaling.kinds(place, service, limit, kinds)
        with bench.step("ways to the image"):
            found["ways"] = scaling.ways(place, service)
    by_kind = {row["value"]: row for row in found["kinds"]}
    bench.results.setdefault("ratios", {}).update(
        jpeg_24mp_over_1mp=by_kind["24mp"]["own_cpu_ms"] / by_kind["1mp"]["own_cpu_ms"],
        jpeg_1mp_over_limit=by_kind["1mp"]["cost_over_limit"],
        jpeg_24mp_over_limit=by_kind["24mp"]["cost_over_limit"],
    )
    questions: dict[str, Callable[[], list[scaling.Row]]] = {"cores": lambda: scaling.cores(place)}
    if plan.all_scaling:
        questions |= {
            "decoders": lambda: scaling.decoders(place, (1, 2, 3, 4)),
            "workers": lambda: scaling.workers(place, 3),
            "tags": lambda: scaling.tags(place),
        }
    questions["instances"] = lambda: scaling.instances(place)
    for name, ask in questions.items():
        with bench.step(f"scaling with {name}"):
            found[name] = ask()


def alternatives(bench: Bench) -> None:
    """Other decoders and runtimes, in an environment of their own."""
    import alternatives as tried

    with bench.step("other decoders and runtimes"):
        bench.results["alternatives"] = tried.measure(OUT, bench.pictures, bench.plan.seconds)


# ── the run ──────────────────────────────────────────────────────────────────────────────────────────────────────────


def about(plan: Plan) -> dict[str, Any]:
    """Where and how it was measured."""
    cpu = next(
        (
            line.split(":", 1)[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        platform.machine(),
    )
    return {
        "command": _command(plan),
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "processor": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        **{name: version(name) for name in ("ai-edge-litert", "tensorflow", "pillow", "pika")},
        "rounds": plan.rounds,
        "seconds_a_run": plan.seconds,
        "seed": plan.seed,
    }


def _command(plan: Plan) -> str:
    """What makes a run like this one."""
    if sys.argv[1:] in ([], ["--quick"]):
        return "make bench" if plan.all_peers else "make bench QUICK=1"
    return f"scripts/private_broker.py run -- python bench/run.py {' '.join(sys.argv[1:])}"


def main() -> int:
    """Parse the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Measure Autotag beside its limit and its competitors.")
    parser.add_argument("--quick", action="store_true", help="a shorter run of the same, under five minutes")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=None, metavar="SECTION")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="length of one run of one contestant")
    parser.add_argument("--seed", type=int, help="of the orders and the arrivals; else drawn, and written down")
    chosen = parser.parse_args()
    url = os.environ.get("AUTOTAG_AMQP__URL")
    if not url:
        print("bench: AUTOTAG_AMQP__URL names no broker: run `make bench`, which starts one", file=sys.stderr)
        return 2
    plan = _plan(chosen)
    sections = chosen.only or (SECTIONS[:2] if chosen.quick else SECTIONS)
    OUT.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    if chosen.only and report.RESULTS.is_file():
        results = json.loads(report.RESULTS.read_text())
    now = about(plan)
    if "about" in results:  # what the other sections found stays, and with it how they were measured
        results["about"]["measured later"] = f"{', '.join(sections)} ({now['command']}, {now['taken']})"
    results |= {"about": results.get("about", now), "failed": {}}
    for model in MODELS.values():
        ensure_model(model, load_settings().settings.cache_dir)
    with Queues(url) as queues, tempfile.TemporaryDirectory(prefix="autotag-bench-") as folder:
        pictures = workloads.make(OUT / "images")
        broker = listener(queues.port) if queues.local else None
        bench = Bench(plan, queues, url, Path(folder), pictures, broker, results)
        results["workloads"] = pictures.describe()
        for section in sections:
            {"throughput": throughput, "scaling": scale, "alternatives": alternatives}[section](bench)
            report.RESULTS.write_text(json.dumps(results, indent=1))
    report.show(results)
    _warn_of_others(results)
    print(f"\nresults: {report.RESULTS.relative_to(ROOT)}; for the documentation: python bench/report.py --write-docs")
    _draw(results)
    return 1 if results["failed"] else 0


def _plan(chosen: argparse.Namespace) -> Plan:
    base = asdict(QUICK if chosen.quick else FULL)
    base["seed"] = chosen.seed if chosen.seed is not None else int(time.time()) % 100_000
    for name in ("rounds", "seconds"):
        if (value := getattr(chosen, name)) is not None:
            base |= {name: value, f"scaling_{name}": value}
    return Plan(**base)


def _warn_of_others(results: dict[str, Any]) -> None:
    """Report it when another process had the processor: what waits for it is then not measured but guessed."""
    shares = [it["foreign_share"] for it in results.get("throughput", {}).values()]
    if shares and max(shares) > QUIET_SHARE:
        print(
            f"\nbench: other processes used up to {max(shares):.0%} of this machine meanwhile. Costs in CPU-ms hold, "
            "rates and latencies do not: run it again on a quiet machine",
            file=sys.stderr,
        )


def _draw(results: dict[str, Any]) -> None:
    try:
        drawn = report.draw(results, OUT / "plots")
    except ImportError:
        print("bench: no plots: matplotlib is not installed (pip install --group bench)", file=sys.stderr)
    else:
        print(f"plots: {', '.join(str(path.relative_to(ROOT)) for path in drawn)}")


if __name__ == "__main__":
    sys.exit(main())
