"""The recent history as JSON, for programs: the data that the page shows."""

from __future__ import annotations

from dataclasses import asdict

from worker.diagnostics.advice import advice
from worker.http.page.timeline import SPAN_S
from worker.http.page.view import View
from worker.operations.history import BUCKET_S, Failure, RecentResult


def report(view: View) -> dict[str, object]:
    """Timelines, steps of work, failures and results; fields that name assets only if the client may see assets."""
    from_s = view.now_s - SPAN_S
    return {
        "version": view.version,
        "up_s": round(view.now_s - view.history.began_s, 1),
        "lives": {
            name: [
                {"state": each.state.value, "from": view.timestamp(each.from_s), "to": view.timestamp(each.to_s)}
                for each in timeline.intervals(from_s, view.now_s)
            ]
            for name, timeline in view.history.children.items()
        },
        "moments": [
            {"time": view.timestamp(each.at_s), "kind": each.kind, "who": each.source, "what": each.description}
            for each in view.history.occurrences
        ],
        "step_s": BUCKET_S,
        "steps": [
            {
                "answered": bucket.answered,
                "failed": bucket.failed,
                "put_off": bucket.put_off,
                "waiting": bucket.waiting,
                "in_hand": bucket.in_hand,
                "half_within_s": bucket.percentile_s(0.5),
                "95_percent_within_s": bucket.percentile_s(0.95),
            }
            for bucket in view.history.throughput.window(view.now_s)
        ],
        "connector": view.connector.model_dump() if view.connector is not None and view.may_see_assets else None,
        "failures": [_failure(view, each) for each in view.history.failures],
        "results": [_result(view, each) for each in view.history.results] if view.may_see_assets else None,
    }


def _failure(view: View, each: Failure) -> dict[str, object]:
    fields: dict[str, object] = {
        "reason": each.reason,
        "kind": each.kind,
        "provider": each.provider or None,
        "times": each.times,
        "first": view.timestamp(each.first_s),
        "last": view.timestamp(each.last_s),
        "what_to_do": advice(each.reason, each.kind),
    }
    if view.may_see_assets:
        fields |= {"asset_id": each.asset_id, "instance": each.instance, "message": each.message}
    return fields


def _result(view: View, each: RecentResult) -> dict[str, object]:
    return {
        "time": view.timestamp(each.at_s),
        "asset_id": each.asset_id,
        "instance": each.instance,
        "status": each.status,
        "reason": each.reason,
        "tags": [asdict(tag) for tag in each.tags],
        "number_of_tags": each.number_of_tags,
        "providers": [asdict(report) for report in each.providers],
        "complete": each.complete,
        "took_s": round(each.took_s, 4),
    }
