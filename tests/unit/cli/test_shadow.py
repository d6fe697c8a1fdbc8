"""The report of a candidate for people."""

from __future__ import annotations

import pytest

from worker.cli.shadow import lines
from worker.operations.health.shadow_report import ChangedImage, ChangedTag, ShadowReport

REPORT = ShadowReport(
    model="efficientnet-lite0",
    state="ready",
    share=0.1,
    compared=200,
    alike=150,
    skipped={"busy": 3},
    added=[ChangedTag("cat", 12, 40)],
    removed=[ChangedTag("dog", 7, 0)],
    mean_change=-0.0123,
    real_cpu_ms=11.9,
    candidate_cpu_ms=6.04,
    examples=[ChangedImage("a.jpg", "acme", [("cat", 0.81)], [("dog", 0.62)])],
)


def test_it_says_how_many_what_and_for_example_which() -> None:
    assert list(lines(REPORT)) == [
        "candidate              efficientnet-lite0: ready",
        "images compared        200 of a share of 0.1; skipped: 3 busy",
        "with the same tags     75% (150)",
        "change of confidence   -0.012 for tags that stay",
        "processor time         6.0 ms an image; now 11.9 ms",
        "would be added",
        "       12  cat (stays on 40)",
        "would be removed",
        "        7  dog (stays on 0)",
        "for example",
        "    a.jpg (acme): +cat 81%, -dog 62%",
    ]


def test_it_crosses_the_socket_unchanged_and_another_versions_is_refused() -> None:
    assert ShadowReport.from_json(REPORT.to_json()) == REPORT
    with pytest.raises(ValueError, match="compared"):
        ShadowReport.from_json({"model": "x"})
