"""Counts of each instance over 15 minutes."""

from __future__ import annotations

from worker.operations.history.tenants import OTHER, TenantCounts, Tenants


def test_each_known_instance_is_counted_by_itself_and_all_others_together() -> None:
    tenants = Tenants()
    tenants.know(["default", "acme"])
    tenants.record("acme", "answered", 30.0)
    tenants.record("acme", "failed", 30.0)
    tenants.record("made up 1", "answered", 30.0)
    tenants.record(None, "failed", 30.0)
    assert tenants.counts(90.0) == {
        "acme": TenantCounts(answered=1, failed=1, put_off=0, answered_last_minute=1),
        OTHER: TenantCounts(answered=1, failed=1, put_off=0, answered_last_minute=1),
    }


def test_what_is_older_than_15_minutes_is_not_counted() -> None:
    tenants = Tenants()
    tenants.know(["acme"])
    for minute in (0, 5, 14):
        tenants.record("acme", "answered", minute * 60.0)
    assert tenants.counts(14 * 60.0)["acme"].answered == 3
    assert tenants.counts(15 * 60.0)["acme"].answered == 2
    assert tenants.counts(16 * 60.0)["acme"].answered_last_minute == 0
    assert tenants.counts(28 * 60.0)["acme"].answered == 1
    assert tenants.counts(29 * 60.0) == {}
    tenants.record("acme", "failed", 1000 * 60.0)
    assert tenants.counts(1000 * 60.0)["acme"] == TenantCounts(failed=1)


def test_those_that_are_no_longer_configured_are_forgotten() -> None:
    tenants = Tenants()
    tenants.know(["acme"])
    tenants.record("acme", "answered", 0.0)
    tenants.know(["other company"])
    assert tenants.counts(0.0) == {}
