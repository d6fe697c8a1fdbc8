"""The long run, guided by coverage: `python -m tests.fuzz.run --seconds 600 [--target NAME]`, which `make fuzz` calls.

Each target gets its share of the time in a process of its own, under atheris (libFuzzer), which needs the dependency
group `fuzz`. What it learns is kept in `.fuzz/`, so that the next run goes on from there. An input that is a finding
ends its target's run; it is written to `.fuzz/findings/`, to be mended and moved to `corpus/`.
"""

from __future__ import annotations

import argparse
import logging
import re
import resource
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
KEPT = Path(__file__).with_name("corpus")
LEARNT = ROOT / ".fuzz"
_MEMORY_BYTES = 4 << 30
_EXECUTED = re.compile(r"stat::number_of_executed_units:\s*(\d+)")


def main() -> int:
    """Run all targets or one, or be the process of one. The exit status is 1 if there are findings."""
    arguments = argparse.ArgumentParser(description="Fuzz what reads untrusted input.")
    arguments.add_argument("--seconds", type=int, default=600, help="for all targets together")
    arguments.add_argument("--target", help="one target instead of all")
    arguments.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.here:
        _fuzz(given.target, given.seconds)
        return 0
    from tests.fuzz.targets import TARGETS

    names = [given.target] if given.target else list(TARGETS)
    if unknown := set(names) - set(TARGETS):
        arguments.error(f"no target {unknown.pop()}; there are {', '.join(TARGETS)}")
    found = [_run(name, max(1, given.seconds // len(names))) for name in names]
    return int(any(found))


def _run(name: str, seconds: int) -> bool:
    """Fuzz a target in a process of its own, print one line about it, and return whether there was a finding."""
    before = set(_findings(name))
    command = [sys.executable, "-m", "tests.fuzz.run", "--here", "--target", name, "--seconds", str(seconds)]
    log = LEARNT / f"{name}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("wb") as file:
        status = subprocess.run(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
    executed = _EXECUTED.findall(log.read_text(errors="replace"))
    new = sorted(set(_findings(name)) - before)
    print(f"{name:14} {int(executed[-1]) if executed else 0:>10,} executions, {len(new)} findings", *new, flush=True)
    if status and not new:
        print(f"{name}: ended with status {status}; {log} says why", flush=True)
    return bool(status or new)


def _findings(name: str) -> list[str]:
    return [str(path) for path in (LEARNT / "findings").glob(f"{name}-*")]


def _fuzz(name: str, seconds: int) -> None:
    """Be the process that fuzzes one target. Does not return."""
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    import atheris

    with atheris.instrument_imports(include=["worker", "PIL"]):
        from tests.fuzz.targets import TARGETS
    import structlog

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    target, seeds, _ = TARGETS[name]
    learnt, findings = LEARNT / "corpus" / name, LEARNT / "findings"
    for folder in (learnt, findings):
        folder.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(seeds()):
        (learnt / f"seed-{number}").write_bytes(seed)
    kept = [str(KEPT / name)] if (KEPT / name).is_dir() else []
    options = [f"-max_total_time={seconds}", f"-artifact_prefix={findings}/{name}-", "-print_final_stats=1"]
    limits = ["-max_len=8192", "-timeout=20", "-rss_limit_mb=3000"]
    atheris.Setup([sys.argv[0], *options, *limits, str(learnt), *kept], target)
    atheris.Fuzz()


if __name__ == "__main__":
    sys.exit(main())
