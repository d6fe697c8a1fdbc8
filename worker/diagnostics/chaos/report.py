"""The report of a chaos run, and whether the run was sound. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

from worker.diagnostics.chaos.judge import MEANING, Flaw
from worker.diagnostics.chaos.ledger import Ledger
from worker.diagnostics.chaos.schedule import FaultKind
from worker.diagnostics.chaos.workload import ExpectedEnd, PlannedEvent

_EXAMPLES = 20
_EVIDENCE = 3
"""Events of each flaw."""


@dataclass(slots=True)
class ChaosReport:
    """The counts of a run. Its fields are the keys of `autotag chaos --json`."""

    seed: int
    events: int
    ends: dict[str, int] = field(default_factory=dict)
    """Events by the status they ended with."""
    results: int = 0
    partial_results: int = 0
    late_partial_results: int = 0
    dead_letters: int = 0
    duplicates: int = 0
    without_model: int = 0
    """Results that another provider's answer alone gave while the model was disabled."""
    waited_while_disabled: int = 0
    """Events seen to wait while the model was disabled everywhere; the reset let them be answered."""
    flaws: dict[str, int] = field(default_factory=dict)
    """Events by what is wrong with them; see `Flaw`. Every one must be 0."""
    kills: dict[str, int] = field(default_factory=dict)
    kills_planned: dict[str, int] = field(default_factory=dict)
    impossible: dict[str, str] = field(default_factory=dict)
    """Why a kind of fault was not injected: it was left out, or that could not be done here."""
    took_part: dict[str, int] = field(default_factory=dict)
    """Events by tenant, lane, and how they carried their image."""
    missing: list[str] = field(default_factory=list)
    """Who took no part because nobody named it: the run shows nothing about these."""
    longest_pause_s: float = 0.0
    exit_statuses: list[int | None] = field(default_factory=list)
    """Of the workers when they were stopped at the end; None: it did not stop in time and was killed."""
    seconds: float = 0.0
    examples: dict[str, list[str]] = field(default_factory=dict)
    """Some ids for each flaw that was found."""
    evidence: dict[str, list[str]] = field(default_factory=dict)
    """What came of some of these events: every different result, and the reason of each dead letter."""

    @property
    def sound(self) -> bool:
        """Whether every event ended exactly once and as expected, and every kind of fault happened as planned."""
        return not self.complaints

    @property
    def complete(self) -> bool:
        """Whether everybody took part."""
        return not self.missing

    @property
    def complaints(self) -> list[str]:
        """Why the run is not sound, a sentence each."""
        found = [
            f"{name.replace('_', ' ')}: {number} ({MEANING[Flaw(name)]})"
            for name, number in self.flaws.items()
            if number
        ]
        for kind, planned in self.kills_planned.items():
            if (happened := self.kills.get(kind, 0)) != planned or (not planned and kind in self.impossible):
                why = self.impossible.get(kind, "it found nothing to hit")
                found.append(f"{happened} of {planned} faults of the kind {kind.replace('_', ' ')} happened: {why}")
        if self.without_model and not self.kills.get(FaultKind.MODEL_DISABLED.value):
            found.append(f"{self.without_model} results lack the model's tags, which was never disabled")
        if sum(self.ends.values()) != self.events:
            found.append("not every event was accounted for")
        if not self.exit_statuses or any(status != 0 for status in self.exit_statuses):
            found.append(f"the workers did not all end with status 0 when asked to stop: {self.exit_statuses}")
        return found

    @property
    def verdict(self) -> str:
        """Whether the run proves what it is for, and why: on the first line in short, then a line for each reason."""
        happened, planned = sum(self.kills.values()), sum(self.kills_planned.values())
        of_faults = f"{happened} of {planned} faults happened"
        if self.complaints:
            lines = [f"not sound, for these reasons ({of_faults}):", *self.complaints]
        else:
            what = f"all {self.events:,} events ended once, and as they had to; {of_faults}"
            lines = [f"sound{'' if self.complete else ', but not complete'}: {what}"]
        if not self.complete:
            lines.append(f"it shows nothing about what took no part: {', '.join(self.missing)}")
        return "\n  ".join(lines)

    def as_json(self) -> dict[str, object]:
        """Every field, `sound`, and why not, `complete`, and the verdict in words."""
        judged = {"sound": self.sound, "complaints": self.complaints, "complete": self.complete}
        return asdict(self) | judged | {"verdict": self.verdict}


def report_of(
    *,
    seed: int,
    ledger: Ledger,
    planned: Sequence[PlannedEvent],
    kills: Mapping[FaultKind, int],
    kills_planned: Mapping[FaultKind, int],
    impossible: Mapping[FaultKind, str],
    missing: Sequence[str],
    waited_while_disabled: int,
    exit_statuses: Sequence[int | None],
    seconds: float,
) -> ChaosReport:
    """The report about a ledger and the faults that were injected."""
    flaws = ledger.flaws()
    return ChaosReport(
        seed=seed,
        events=len(planned),
        ends=ledger.ends,
        results=ledger.results,
        partial_results=ledger.partial_results,
        late_partial_results=ledger.late_partial_results,
        dead_letters=ledger.dead_letters,
        duplicates=ledger.duplicates,
        without_model=ledger.without_model,
        waited_while_disabled=waited_while_disabled,
        flaws={flaw.value: len(flaws[flaw]) for flaw in Flaw},
        kills={kind.value: kills.get(kind, 0) for kind in FaultKind},
        kills_planned={kind.value: kills_planned.get(kind, 0) for kind in FaultKind},
        impossible={kind.value: why for kind, why in impossible.items()},
        took_part=_took_part(planned),
        missing=list(missing),
        longest_pause_s=round(ledger.longest_pause_s, 1),
        exit_statuses=list(exit_statuses),
        seconds=round(seconds, 1),
        examples={flaw.value: sorted(ids)[:_EXAMPLES] for flaw, ids in flaws.items() if ids},
        evidence={each: ledger.evidence(each) for ids in flaws.values() for each in sorted(ids)[:_EVIDENCE]},
    )


def _took_part(planned: Sequence[PlannedEvent]) -> dict[str, int]:
    counts: Counter[str] = Counter()
    for each in planned:
        counts[f"lane {each.lane.value}"] += 1
        counts[f"image by {each.kind}" if each.kind != "none" else "no event at all"] += 1
        if each.expected.end in (ExpectedEnd.TAGGED, ExpectedEnd.SKIPPED):
            counts[f"tenant {each.expected.instance}"] += 1
        for provider in each.expected.labels:
            counts[f"provider {provider}"] += 1
    return dict(sorted(counts.items()))
