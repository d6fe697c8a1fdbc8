"""The record of the last while as JSON, for programs: what the page shows, without the words around it."""

from __future__ import annotations

from dataclasses import asdict

from worker.diagnostics.advice import advice
from worker.http.page.timeline import SPAN_S
from worker.http.page.view import View
from worker.operations.history import BUCKET_S, Failure, RecentResult


def report(view: View) -> dict[str, object]:
    """Lives, steps of work, failures and results; those that name assets only for who may see them."""
    from_s = view.now_s - SPAN_S
    return {
        "version": view.version,
        "up_s": round(view.now_s - view.history.began_s, 1),
        "lives": {
            name: [
                {"state": each.state.value, "from": view.moment(each.from_s), "to": view.moment(each.to_s)}
                for each in life.intervals(from_s, view.now_s)
            ]
            for name, life in view.history.lives.items()
        },
        "moments": [
            {"time": view.moment(each.at_s), "kind": each.kind, "who": each.who, "what": each.words}
            for each in view.history.moments
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
        "failures": [_failure(view, each) for each in view.history.failures],
        "results": [_answer(view, each) for each in view.history.results] if view.sees_assets else None,
    }


def _failure(view: View, each: Failure) -> dict[str, object]:
    told: dict[str, object] = {
        "reason": each.reason,
        "kind": each.kind,
        "provider": each.who or None,
        "times": each.times,
        "first": view.moment(each.first_s),
        "last": view.moment(each.last_s),
        "what_to_do": advice(each.reason, each.kind),
    }
    if view.sees_assets:
        told |= {"asset_id": each.asset_id, "instance": each.instance, "message": each.message}
    return told


def _answer(view: View, each: RecentResult) -> dict[str, object]:
    return {
        "time": view.moment(each.at_s),
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
