"""What was measured, for people: tables on the terminal, the same tables in the documentation, and plots.

    python bench/report.py [RESULTS]               show the tables of an earlier run
    python bench/report.py [RESULTS] --write-docs  put them, and the plots, into docs/performance.md

No number in the documentation is typed by hand: between `<!-- bench: KEY -->` and `<!-- bench end -->` stands what this
writes.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "bench" / "out" / "results.json"
DOCS = ROOT / "docs" / "performance.md"
PICTURES = ROOT / "docs" / "images"
PICTURE_PREFIX = "performance-"

Results = Mapping[str, Any]

_BLOCK = re.compile(r"(<!-- bench: (?P<key>[a-z0-9_]+) -->\n).*?(<!-- bench end -->)", re.DOTALL)
_NOT_MEASURED = "Not measured yet: run `make bench`, then `python bench/report.py --write-docs`.\n"

GOALS: dict[str, tuple[str, float]] = {
    "limit_lite0": (">=", 0.85),
    "limit_lite2": (">=", 0.90),
    "cpu_lite0": (">=", 0.95),
    "cpu_lite2": (">=", 0.95),
    "peer_pika_keras": (">=", 9.0),
    "peer_celery_tensorflow": (">=", 3.0),
    "peer_dramatiq_tensorflow": (">=", 3.0),
    "peer_litserve_tensorflow": (">=", 3.0),
    "peer_dramatiq_litert": (">", 1.0),
    "jpeg_24mp_over_1mp": ("<", 2.0),
    "jpeg_1mp_over_limit": ("<=", 1.1),
    "jpeg_24mp_over_limit": ("<=", 1.1),
    "p50_idle": ("<", 1.5),
    "p99_half": ("<", 5.0),
}
"""What the project has set itself for each ratio; a ratio without a goal is there for comparison."""


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of text under a heading."""

    key: str
    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]


def tables(results: Results) -> list[Table]:
    """Every table for which there are results, in the order of the documentation."""
    made = [make(results) for make in _MAKERS]
    return [table for table in made if table is not None and table.rows]


def meets(name: str, value: float) -> bool | None:
    """Whether a ratio is as good as the goal; None where there is none."""
    if name not in GOALS:
        return None
    comparison, goal = GOALS[name]
    return {">=": value >= goal, ">": value > goal, "<": value < goal, "<=": value <= goal}[comparison]


# ── the tables ───────────────────────────────────────────────────────────────────────────────────────────────────────


def _about(results: Results) -> Table | None:
    about = results.get("about", {})
    return Table("about", "Where and how", ("what", "value"), [(str(name), str(it)) for name, it in about.items()])


def _ratios(results: Results) -> Table | None:
    rows = []
    for name, value in results.get("ratios", {}).items():
        comparison, goal = GOALS.get(name, ("", float("nan")))
        met = {True: "yes", False: "no", None: ""}[meets(name, value)]
        rows.append((name, f"{value:.2f}", f"{comparison} {goal:g}" if comparison else "", met))
    return Table("ratios", "Ratios", ("ratio", "measured", "goal", "met"), rows)


def _throughput(results: Results) -> Table | None:
    rows = []
    for name, found in results.get("throughput", {}).items():
        if "failed" in found:
            rows.append((name, "failed", found["failed"][:60], "", ""))
            continue
        costs = ", ".join(f"{group} {cost:.2f}" for group, cost in found["cpu_ms"].items())
        rows.append(
            (name, _spread(found["images_per_s"]), f"{found['own_cpu_ms']:.2f}", costs, f"{found['foreign_share']:.0%}")
        )
    columns = (
        "who",
        "images/s (lowest to highest)",
        "CPU-ms an image, without the broker",
        "of which",
        "others' share",
    )
    return Table("throughput", "Throughput, web-size photographs by path", columns, rows)


def _stages(results: Results) -> Table | None:
    rows = []
    for model, found in results.get("stages", {}).items():
        placed = found["in_place_ms"]
        rows += [(model, stage, f"{cost:.2f}", f"{placed[stage]:.2f}") for stage, cost in found["cpu_ms"].items()]
        sums = (f"{found['sum_ms']:.2f}", f"{sum(placed.values()):.2f}")
        rows.append((model, "sum of the stages", *sums))
        whole_ms = found["whole_ms"]
        shares = (f"{found['explained']:.0%}", f"{sum(placed.values()) / whole_ms:.0%}")
        rows.append((model, f"of the whole, which is {whole_ms:.2f}", *shares))
    columns = ("model", "stage", "CPU-ms an image, by itself", "in its place")
    return Table("stages", "The bare limit, stage by stage", columns, rows)


def _account(results: Results) -> Table | None:
    rows = [
        (model, part, f"{found['service_ms'].get(part, 0.0):.2f}", f"{found['limit_ms'].get(part, 0.0):.2f}")
        for model, found in results.get("account", {}).items()
        for part in ("parent", "decoders", "model", "broker")
    ]
    columns = ("model", "process", "CPU-ms an image", "of which the bare limit has")
    return Table("account", "Where the service's time goes, beside the limit", columns, rows)


def _latency(results: Results) -> Table | None:
    rows = []
    for each in results.get("latency", []):
        outside = each["queue_wait_ms"]
        rows.append(
            (
                each["model"],
                f"{each['load']:.0%}",
                f"{each['rate_per_s']:.0f}",
                str(each["events"]),
                *(f"{each[key]:.1f}" for key in ("p50_ms", "p95_ms", "p99_ms")),
                f"{outside['p50']:.1f} / {outside['p99']:.1f}",
                f"{each['bare_ms']:.1f} / {each['bare_without_pauses_ms']:.1f}",
                ", ".join(f"{stage} {spent:.1f}" for stage, spent in each["stages_ms"].items()),
            )
        )
    columns = (
        "model",
        "load",
        "events/s",
        "events",
        "p50 ms",
        "p95 ms",
        "p99 ms",
        "outside, p50 / p99 ms",
        "bare / hot ms",
    )
    return Table("latency", "From publish to result", (*columns, "stages, median ms"), rows)


def _recovery(results: Results) -> Table | None:
    rows = []
    for name, found in results.get("recovery", {}).items():
        recovery = _spread(found["recovery_s"], 3) if "recovery_s" in found else ""
        rows.append((name, recovery, _spread(found["gap_s"], 3), f"{found['usual_gap_s']:.3f}"))
    columns = ("spare child", "kill to successor's first result, s", "longest pause, s", "usual pause (p99), s")
    return Table("recovery", "The model child killed under load", columns, rows)


def _memory(results: Results) -> Table | None:
    rows = [
        (model, process, f"{held:.0f}")
        for model, found in results.get("memory", {}).items()
        for process, held in found.items()
    ]
    return Table("memory", "Resident memory after the runs", ("model", "process", "MB"), rows)


def _growth(results: Results) -> Table | None:
    rows = [
        (f"{found['images']:,}", f"{found['parent_mb_per_10000']:+.2f}", f"{found['total_mb_per_10000']:+.2f}")
        for found in [results.get("growth")]
        if found
    ]
    return Table("growth", "Growth over a long run", ("images", "parent, MB per 10,000", "all, MB per 10,000"), rows)


def _cold_start(results: Results) -> Table | None:
    rows = [
        (
            f"{each['waiting']:,}",
            f"{each['first_result_s']:.2f}",
            f"{each['parent_mb']:.0f}",
            f"{each['broker_mb']:.0f}",
        )
        for each in results.get("cold_start", [])
    ]
    columns = ("events waiting", "start to first result, s", "parent, MB", "broker, MB")
    return Table("cold_start", "A cold start into a backlog", columns, rows)


def _scaling(key: str, title: str, what: str) -> Callable[[Results], Table | None]:
    def make(results: Results) -> Table | None:
        found = results.get("scaling", {}).get(key, [])
        extra = [
            name for name in ("of_limit", "limit_cpu_ms", "cost_over_limit", "mean_bytes") if found and name in found[0]
        ]
        rows = []
        for row in found:
            costs = ", ".join(f"{group} {cost:.2f}" for group, cost in row["cpu_ms"].items())
            more = tuple(f"{row[name]:,}" if name == "mean_bytes" else f"{row[name]:.2f}" for name in extra)
            rows.append((str(row["value"]), _spread(row["images_per_s"]), f"{row['own_cpu_ms']:.2f}", costs, *more))
        columns = (what, "images/s (lowest to highest)", "CPU-ms an image, without the broker", "of which")
        return Table(f"scaling_{key}", title, (*columns, *(name.replace("_", " ") for name in extra)), rows)

    return make


def _alternatives(results: Results) -> Table | None:
    rows = [
        (each["what"], each["on"], each["who"], _ms(each["wall_ms"]), _ms(each["cpu_ms"]), each["note"])
        for each in results.get("alternatives", [])
    ]
    columns = ("what", "on", "with", "ms an image, one thread", "CPU-ms", "remark")
    return Table("alternatives", "Other decoders and runtimes", columns, rows)


_MAKERS: tuple[Callable[[Results], Table | None], ...] = (
    _about,
    _ratios,
    _throughput,
    _stages,
    _account,
    _latency,
    _recovery,
    _memory,
    _growth,
    _cold_start,
    _scaling("cores", "By number of cores, broker included", "cores"),
    _scaling("decoders", "By number of decoder children", "decoders"),
    _scaling("workers", "By number of workers on one queue", "workers"),
    _scaling("kinds", "By kind of image", "kind"),
    _scaling("ways", "By the way to the image", "way"),
    _scaling("tags", "By number of tags", "tags"),
    _scaling("instances", "By number of instances", "instances"),
    _alternatives,
)


def _ms(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def _spread(summary: Mapping[str, float], decimals: int = 1) -> str:
    return f"{summary['median']:.{decimals}f} ({summary['low']:.{decimals}f} to {summary['high']:.{decimals}f})"


# ── where they go ────────────────────────────────────────────────────────────────────────────────────────────────────


def show(results: Results) -> None:
    """Print every table."""
    from rich.console import Console
    from rich.table import Table as Drawn

    console = Console()
    for table in tables(results):
        drawn = Drawn(*table.columns, title=table.title, title_justify="left")
        for row in table.rows:
            drawn.add_row(*row)
        console.print(drawn)


def markdown(table: Table) -> str:
    """A table as it stands in the documentation."""
    lines = ["| " + " | ".join(table.columns) + " |", "|" + " --- |" * len(table.columns)]
    lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in table.rows]
    return "\n".join(lines) + "\n"


def with_tables(text: str, results: Results) -> str:
    """A document with its blocks filled in. Raises KeyError for a block of an unknown key."""
    made = {table.key: markdown(table) for table in tables(results)}
    known = {table.key for table in (make({}) for make in _MAKERS) if table is not None}

    def fill(block: re.Match[str]) -> str:
        if block["key"] not in known:
            raise KeyError(block["key"])
        return f"{block[1]}{made.get(block['key'], _NOT_MEASURED)}{block[3]}"

    return _BLOCK.sub(fill, text)


def draw(results: Results, folder: Path) -> list[Path]:
    """Write the plots. Raises ImportError where matplotlib is not installed."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name, plot in _PLOTS.items():
        figure, axes = pyplot.subplots(figsize=(7, 3.6), layout="constrained")
        if plot(axes, results):
            written.append(folder / f"{PICTURE_PREFIX}{name}.png")
            figure.savefig(written[-1], dpi=120)
        pyplot.close(figure)
    return written


def _plot_throughput(axes: Any, results: Results) -> bool:
    found = {name: it["images_per_s"] for name, it in results.get("throughput", {}).items() if "failed" not in it}
    names = sorted(found, key=lambda name: found[name]["median"])
    medians = [found[name]["median"] for name in names]
    spread = [
        [found[name]["median"] - found[name]["low"] for name in names],
        [found[name]["high"] - found[name]["median"] for name in names],
    ]
    colours = ["#1f6f8b" if "autotag" in name else "#9aa5ab" if "limit" in name else "#d08c60" for name in names]
    axes.barh(names, medians, xerr=spread, color=colours)
    axes.set_xlabel("images/s, median of the rounds, lowest to highest")
    return bool(names)


def _plot_latency(axes: Any, results: Results) -> bool:
    found = results.get("latency", [])
    for model in dict.fromkeys(each["model"] for each in found):
        own = [each for each in found if each["model"] == model]
        loads = [each["load"] * 100 for each in own]
        for share, style in (("p50_ms", "-"), ("p95_ms", "--"), ("p99_ms", ":")):
            axes.plot(loads, [each[share] for each in own], style, marker="o", label=f"{model} {share[:3]}")
    axes.set_xlabel("load, % of the throughput measured in the same run")
    axes.set_ylabel("ms from publish to result")
    axes.set_yscale("log")
    if found:
        axes.legend(fontsize=8)
    return bool(found)


def _plot_memory(axes: Any, results: Results) -> bool:
    points = results.get("growth", {}).get("points", [])
    for place, label in ((1, "parent"), (2, "parent and children")):
        axes.plot([point[0] for point in points], [point[place] for point in points], label=label)
    axes.set_xlabel("images done")
    axes.set_ylabel("resident MB")
    axes.set_ylim(bottom=0)
    if points:
        axes.legend(fontsize=8)
    return bool(points)


def _plot_costs(axes: Any, results: Results) -> bool:
    rows = results.get("scaling", {}).get("kinds", [])
    groups = ("parent", "decoders", "model", "broker")
    names = [str(row["value"]) for row in rows]
    bottom = [0.0] * len(rows)
    for group in groups:
        heights = [row["cpu_ms"].get(group, 0.0) for row in rows]
        axes.bar(names, heights, bottom=bottom, label=group)
        bottom = [low + height for low, height in zip(bottom, heights, strict=True)]
    axes.plot(names, [row["limit_cpu_ms"] for row in rows], "k_", markersize=24, label="bare limit")
    axes.set_ylabel("CPU-ms an image")
    if rows:
        axes.legend(fontsize=8)
    return bool(rows)


_PLOTS: dict[str, Callable[[Any, Results], bool]] = {
    "throughput": _plot_throughput,
    "latency": _plot_latency,
    "memory": _plot_memory,
    "costs": _plot_costs,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Parse the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Show, or document, what `make bench` measured.")
    parser.add_argument("results", nargs="?", type=Path, default=RESULTS)
    parser.add_argument("--write-docs", action="store_true", help=f"fill in the tables and plots of {DOCS.name}")
    chosen = parser.parse_args(arguments)
    if not chosen.results.is_file():
        print(f"bench: there is no {chosen.results}: run `make bench` first", file=sys.stderr)
        return 1
    results = json.loads(chosen.results.read_text())
    if not chosen.write_docs:
        show(results)
        return 0
    DOCS.write_text(with_tables(DOCS.read_text(), results))
    drawn = draw(results, PICTURES)
    print(f"wrote {DOCS.relative_to(ROOT)} and {len(drawn)} plots")
    return 0


if __name__ == "__main__":
    sys.exit(main())
