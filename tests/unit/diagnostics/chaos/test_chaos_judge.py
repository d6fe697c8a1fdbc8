"""The judge of a chaos run: nothing is sound but one right end for every event, and every fault that was asked for."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from worker.cli.chaos import show
from worker.diagnostics.chaos.judge import MEANING, Flaw
from worker.diagnostics.chaos.ledger import Ledger
from worker.diagnostics.chaos.report import ChaosReport, report_of
from worker.diagnostics.chaos.schedule import FaultKind
from worker.diagnostics.chaos.workload import Expectation, ExpectedEnd, PlannedEvent

TF, GOOGLE, MICROSOFT = "tensorflow", "google_cloud_vision", "microsoft_vision"
DIGEST = "a" * 64


def good(instance: str, *providers: str, **more: Any) -> Expectation:
    labels = {provider: f"cat of {provider}" for provider in providers}
    return Expectation(ExpectedEnd.TAGGED, instance, f"asset-{instance}", labels=labels, sha256=DIGEST, **more)


EXPECTED: dict[str, Expectation] = {
    "one": good("local", TF, threshold=0.1),
    "two": good("strict", TF, threshold=0.3, maximum_tags=1),
    "three": good("both", TF, GOOGLE, threshold=0.1),
    "four": good("cloud", MICROSOFT),
    "off": Expectation(ExpectedEnd.SKIPPED, "off", "asset-off", frozenset({"instance_disabled"})),
    "bad": Expectation(ExpectedEnd.FAILED, "local", "asset-bad", frozenset({"image_truncated"})),
    "none": Expectation(ExpectedEnd.DEAD_LETTERED, "local", "", frozenset({"event_not_json"})),
}
PLANNED = [PlannedEvent(name, expected) for name, expected in EXPECTED.items()]
GOOD = [name for name, expected in EXPECTED.items() if expected.end is ExpectedEnd.TAGGED]


def report(name: str, status: str = "ok") -> dict[str, Any]:
    return {"name": name, "status": status, "reason": None, "message": None, "model": "m", "duration_s": 0.1}


def tag(provider: str, name: str | None = None, confidence: float = 0.9) -> dict[str, Any]:
    return {"name": name or f"cat of {provider}", "confidence": confidence, "provider": provider}


def right(event: str) -> dict[str, Any]:
    """The data of the result that an event has to have."""
    expected = EXPECTED[event]
    tagged = expected.end is ExpectedEnd.TAGGED
    return {
        "event_id": event,
        "asset_id": expected.asset_id,
        "instance": expected.instance,
        "status": expected.end.value,
        "reason": next(iter(expected.reasons), None),
        "message": None,
        "tags": [tag(provider) for provider in expected.labels],
        "providers": [report(provider) for provider in expected.labels],
        "complete": True,
        "image": {"format": "JPEG", "width": 1, "height": 1, "sha256": DIGEST} if tagged else None,
    }


class Scene:
    """A ledger to which the right end of every event is given, but for what a test changes."""

    def __init__(self) -> None:
        self.ledger = Ledger(PLANNED)
        self.kills = dict.fromkeys(FaultKind, 2)
        self.planned = dict.fromkeys(FaultKind, 2)

    def result(self, event: str, message_id: str | None = None, time: str = "now", **changes: Any) -> None:
        data = right(event) | changes
        body = json.dumps({"time": time, "data": data}).encode()
        self.ledger.result(body, message_id or f"result-{event}")

    def end(self, event: str) -> None:
        if event != "none":
            self.result(event)
        if event in ("bad", "none"):
            self.ledger.dead_letter(event, next(iter(EXPECTED[event].reasons)))

    def end_all_but(self, *events: str) -> Scene:
        for event in EXPECTED:
            if event not in events:
                self.end(event)
        return self

    def report(self, **changes: Any) -> ChaosReport:
        given: dict[str, Any] = {
            "seed": 1,
            "ledger": self.ledger,
            "planned": PLANNED,
            "kills": self.kills,
            "kills_planned": self.planned,
            "impossible": {},
            "missing": [],
            "waited_while_disabled": 3,
            "exit_statuses": [0, 0],
            "seconds": 1.0,
        }
        return report_of(**given | changes)

    def flaws(self) -> dict[str, list[str]]:
        found = self.report()
        assert found.sound is not any(found.flaws.values())
        return found.examples


@pytest.fixture
def scene() -> Scene:
    return Scene()


def test_one_right_end_for_every_event_is_sound(scene: Scene) -> None:
    found = scene.end_all_but().report()
    assert found.complaints == []
    assert found.sound
    assert found.ends == {"dead_lettered": 1, "failed": 1, "skipped": 1, "tagged": 4}
    assert found.as_json()["sound"] is True


def test_the_verdict_on_a_sound_run_says_what_it_has_seen_and_what_took_no_part(scene: Scene) -> None:
    scene.end_all_but()
    (line,) = scene.report().verdict.splitlines()
    faults = sum(scene.planned.values())
    assert line == f"sound: all 7 events ended once, and as they had to; {faults} of {faults} faults happened"
    first, why = scene.report(missing=["Google Cloud Vision"]).verdict.splitlines()
    assert first.startswith("sound, but not complete: ")
    assert why == "  it shows nothing about what took no part: Google Cloud Vision"
    assert scene.report().as_json()["verdict"] == line


def test_the_verdict_on_an_unsound_run_gives_every_reason_in_words(scene: Scene) -> None:
    scene.end_all_but("one")
    report = scene.report(exit_statuses=[0, 1])
    first, lost, *others = report.verdict.splitlines()
    assert first.startswith("not sound, for these reasons (")
    assert lost == "  lost: 1 (no end: no final result, and no dead letter)"
    assert any("did not all end with status 0" in each for each in others)
    assert len(others) == len(report.complaints) - 1


def test_every_flaw_has_a_meaning_in_words() -> None:
    assert set(MEANING) == set(Flaw)


def test_all_good_images_failed_is_not_sound(scene: Scene) -> None:
    scene.end_all_but(*GOOD)
    for event in GOOD:
        scene.result(event, status="failed", reason="image_in_hand_at_model_crashes", tags=[], providers=[])
        scene.ledger.dead_letter(event, "image_in_hand_at_model_crashes")
    assert scene.flaws() == {"blamed": sorted(GOOD)}


def test_one_good_image_that_failed_is_one_too_many(scene: Scene) -> None:
    scene.end_all_but("one")
    scene.result("one", status="failed", reason="image_killed_decoder", tags=[], providers=[], image=None)
    scene.ledger.dead_letter("one", "image_killed_decoder")
    assert scene.flaws() == {"blamed": ["one"]}


def test_all_good_images_without_tags_is_not_sound(scene: Scene) -> None:
    scene.end_all_but(*GOOD)
    for event in GOOD:
        scene.result(event, status="no_tags", tags=[])
    assert scene.flaws() == {"untagged": sorted(GOOD)}


def test_a_good_image_that_was_skipped_is_not_sound(scene: Scene) -> None:
    scene.end_all_but("one")
    scene.result("one", status="skipped", reason="no_provider_enabled", tags=[])
    assert scene.flaws() == {"untagged": ["one"]}


@pytest.mark.parametrize("tagged_first", [True, False])
def test_tagged_and_failed_is_not_sound(scene: Scene, tagged_first: bool) -> None:
    scene.end_all_but("one")
    if tagged_first:
        scene.end("one")
    scene.result("one", "another", status="failed", reason="internal_error", tags=[])
    scene.ledger.dead_letter("one", "internal_error")
    if not tagged_first:
        scene.end("one")
    assert scene.flaws() == {"blamed": ["one"], "second_end": ["one"]}
    assert scene.report().ends["failed and tagged"] == 1


def test_a_dead_letter_beside_a_tagged_result_is_not_sound(scene: Scene) -> None:
    scene.end_all_but()
    scene.ledger.dead_letter("one", None)  # RabbitMQ's own, after too many deliveries
    assert scene.flaws() == {"blamed": ["one"], "second_end": ["one"]}


def test_two_different_final_results_are_not_sound_even_if_each_is_right(scene: Scene) -> None:
    scene.end_all_but()
    scene.result("one", "another", tags=[tag(TF), tag(TF, "sofa")])
    assert scene.flaws() == {"second_end": ["one"]}


def test_two_dead_letters_with_different_reasons_are_not_sound(scene: Scene) -> None:
    scene.end_all_but()
    scene.ledger.dead_letter("bad", "image_empty")
    assert scene.flaws() == {"second_end": ["bad"], "wrong_reason": ["bad"]}


@pytest.mark.parametrize("event", list(EXPECTED))
def test_an_event_without_an_end_is_not_sound(scene: Scene, event: str) -> None:
    scene.end_all_but(event)
    assert scene.flaws() == {"lost": [event]}
    assert scene.ledger.ended == len(EXPECTED) - 1


def test_half_an_end_is_none(scene: Scene) -> None:
    scene.end_all_but("bad", "one")
    scene.result("bad")  # its dead letter is missing
    scene.ledger.dead_letter("one", None)  # its failed result is missing
    assert scene.flaws() == {"lost": ["bad", "one"], "blamed": ["one"]}


def test_an_incomplete_result_is_no_end_and_one_end_together_with_the_complete_one(scene: Scene) -> None:
    scene.end_all_but("three")
    providers = [report(TF), report(GOOGLE, "unavailable")]
    scene.result("three", "partial", complete=False, tags=[tag(TF)], providers=providers)
    assert scene.flaws() == {"lost": ["three"]}
    scene.end("three")
    found = scene.report()
    assert (found.sound, found.partial_results, found.late_partial_results) == (True, 1, 0)


def test_an_incomplete_result_after_the_complete_one_is_counted_unless_it_came_before(scene: Scene) -> None:
    scene.end_all_but()
    providers = [report(TF), report(GOOGLE, "unavailable")]
    for _ in range(2):
        scene.result("three", "partial", complete=False, tags=[tag(TF)], providers=providers)
    found = scene.report()
    assert (found.sound, found.late_partial_results, found.duplicates) == (True, 1, 1)


def test_an_incomplete_result_has_to_be_right_as_far_as_it_goes(scene: Scene) -> None:
    scene.end_all_but()
    providers = [report(TF), report(GOOGLE, "unavailable")]
    scene.result("three", "partial", complete=False, tags=[tag(TF, "dog")], providers=providers)
    assert scene.flaws() == {"wrong_label": ["three"]}


def test_duplicates_may_differ_in_what_was_measured_and_are_counted(scene: Scene) -> None:
    scene.end_all_but()
    scene.result("one", time="later", providers=[report(TF) | {"duration_s": 7.0}])
    scene.ledger.dead_letter("bad", "image_truncated")
    found = scene.report()
    assert (found.sound, found.duplicates, found.dead_letters) == (True, 2, 3)


@pytest.mark.parametrize(
    "changes",
    [
        {"message": "another sentence"},
        {"providers": [report(TF) | {"reason": "late"}]},
        {"tags": [tag(TF, confidence=0.8999)]},
    ],
)
def test_a_changed_duplicate_is_not_sound(scene: Scene, changes: Mapping[str, Any]) -> None:
    scene.end_all_but()
    scene.result("one", **changes)
    assert scene.flaws() == {"differing_duplicate": ["one"]}
    first, second = map(json.loads, scene.report().evidence["one"])
    assert {name for name in first["data"] if first["data"][name] != second["data"][name]} == set(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"tags": [tag(TF, "dog")]},
        {"tags": []},
        {"image": {"format": "JPEG", "width": 1, "height": 1, "sha256": "b" * 64}},
        {"image": None},
        {"asset_id": "asset-of-another"},
    ],
)
def test_a_wrong_label_or_another_image_is_not_sound(scene: Scene, changes: Mapping[str, Any]) -> None:
    scene.end_all_but("one")
    scene.result("one", **changes)
    assert scene.flaws() == {"wrong_label": ["one"]}


def test_a_label_that_one_of_two_providers_did_not_give_is_not_sound(scene: Scene) -> None:
    scene.end_all_but("three")
    scene.result("three", tags=[tag(TF)], providers=[report(TF), report(GOOGLE, "failed")])
    assert scene.flaws() == {"wrong_label": ["three"]}


@pytest.mark.parametrize(
    ("event", "changes"),
    [
        ("four", {"tags": [tag(MICROSOFT), tag(GOOGLE)], "providers": [report(MICROSOFT), report(GOOGLE)]}),
        ("one", {"providers": [report(TF), report(MICROSOFT, "unavailable")]}),
        ("one", {"instance": "strict"}),
        ("one", {"tags": [tag(TF), tag(TF, "sofa", 0.05)]}),
        ("two", {"tags": [tag(TF), tag(TF, "sofa", 0.5)]}),
    ],
    ids=["another's provider", "another's provider asked", "another's name", "below the threshold", "above the limit"],
)
def test_a_result_made_with_another_tenants_providers_or_settings_is_not_sound(
    scene: Scene, event: str, changes: Mapping[str, Any]
) -> None:
    scene.end_all_but(event)
    scene.result(event, **changes)
    assert scene.flaws() == {"wrong_tenant": [event]}


def test_a_bad_image_or_a_switched_off_tenants_that_is_tagged_is_not_sound(scene: Scene) -> None:
    scene.end_all_but("bad", "off")
    scene.result("bad", status="tagged", reason=None, tags=[tag(TF)])
    scene.result("off", status="tagged", reason=None, tags=[tag(TF)])
    assert scene.flaws() == {"misjudged": ["bad", "off"]}


def test_a_failure_for_another_reason_is_not_sound(scene: Scene) -> None:
    scene.end_all_but("bad", "none", "off")
    scene.result("bad", reason="internal_error")
    scene.ledger.dead_letter("bad", "internal_error")
    scene.ledger.dead_letter("none", None)
    scene.result("off", reason="system_disabled")
    assert scene.flaws() == {"wrong_reason": ["bad", "none", "off"]}


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"data": {"event_id": "nobody\'s"}}', b'{"data": null}'])
def test_a_result_or_dead_letter_of_no_event_is_not_sound(scene: Scene, body: bytes) -> None:
    scene.end_all_but()
    scene.ledger.result(body, "odd")
    scene.ledger.dead_letter("nobody's", "reason")
    assert scene.flaws() == {"stranger": ["nobody's", "odd"]}


def without_model(scene: Scene) -> None:
    scene.end_all_but("three")
    scene.result("three", tags=[tag(GOOGLE)], providers=[report(TF, "unavailable"), report(GOOGLE)])


def test_an_answer_without_the_models_tags_is_sound_only_if_the_model_was_disabled(scene: Scene) -> None:
    without_model(scene)
    assert scene.report().sound
    assert scene.report().without_model == 1
    del scene.kills[FaultKind.MODEL_DISABLED], scene.planned[FaultKind.MODEL_DISABLED]
    assert "never disabled" in " ".join(scene.report().complaints)
    assert not scene.report().sound


def test_the_same_event_answered_with_and_without_the_model_is_not_sound(scene: Scene) -> None:
    without_model(scene)
    scene.result("three", "another")
    assert scene.flaws() == {"second_end": ["three"]}


@pytest.mark.parametrize("kind", list(FaultKind))
@pytest.mark.parametrize("happened", [0, 1])
def test_a_kind_of_kill_that_was_left_out_or_happened_less_than_asked_is_not_sound(
    scene: Scene, kind: FaultKind, happened: int
) -> None:
    scene.end_all_but()
    scene.kills[kind] = happened
    found = scene.report()
    assert not found.sound
    (complaint,) = found.complaints
    assert f"{happened} of 2 faults of the kind {kind.value.replace('_', ' ')}" in complaint


@pytest.mark.parametrize("kind", list(FaultKind))
def test_a_kind_of_kill_that_was_not_planned_is_not_sound_and_says_why(scene: Scene, kind: FaultKind) -> None:
    scene.end_all_but()
    del scene.planned[kind], scene.kills[kind]
    found = scene.report(impossible={kind: "it was left out on request"})
    assert not found.sound
    (complaint,) = found.complaints
    assert complaint.startswith("0 of 0 faults")
    assert complaint.endswith("it was left out on request")


def test_somebody_who_took_no_part_leaves_the_run_sound_but_not_complete(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    found = scene.end_all_but().report(missing=["Google Cloud Vision", "images fetched by URL"])
    assert (found.sound, found.complete, found.as_json()["complete"]) == (True, False, False)
    show(found, as_json=False)
    shown = capsys.readouterr().out
    assert "sound, but not complete: all 7 events ended once" in shown
    assert "shows nothing about what took no part: Google Cloud Vision, images fetched by URL" in shown
    show(scene.report(), as_json=False)
    assert "complete" not in capsys.readouterr().out


def test_a_kind_of_kill_that_cannot_be_injected_here_is_not_sound_and_says_why(scene: Scene) -> None:
    scene.end_all_but()
    scene.kills[FaultKind.CONNECTION] = 0
    found = scene.report(impossible={FaultKind.CONNECTION: "the kernel forbids it"})
    assert not found.sound
    assert "the kernel forbids it" in found.complaints[0]


@pytest.mark.parametrize("statuses", [[0, 1], [0, -15], [None, 0], []])
def test_a_worker_that_did_not_end_well_is_not_sound(scene: Scene, statuses: list[int | None]) -> None:
    scene.end_all_but()
    assert not scene.report(exit_statuses=statuses).sound


def test_the_longest_time_in_which_no_event_ended_is_known() -> None:
    ledger = Ledger(PLANNED)
    ledger.begin(100.0)
    send: Callable[[str, float], None] = lambda event, now_s: ledger.result(  # noqa: E731 - used here alone
        json.dumps({"data": right(event)}).encode(), f"result-{event}", now_s
    )
    send("one", 101.0)
    send("two", 108.0)
    send("two", 120.0)  # a duplicate ends nothing
    send("three", 121.0)
    assert ledger.longest_pause_s == 13.0


def test_every_flaw_is_in_the_report() -> None:
    assert list(Scene().report().flaws) == [flaw.value for flaw in Flaw]
