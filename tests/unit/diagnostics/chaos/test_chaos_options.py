"""Before a chaos run begins: what takes part, and what the photographs are known to show."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from worker.diagnostics.chaos.run import ChaosOptions
from worker.diagnostics.chaos.schedule import FaultKind
from worker.diagnostics.chaos.undisturbed import usable
from worker.diagnostics.chaos.workload import photographs_in, tenants
from worker.errors import Misconfigured
from worker.settings import AmqpSettings

TF, GOOGLE = "tensorflow", "google_cloud_vision"
CAT, CUP = Path("/photographs/cat.jpg"), Path("/photographs/cup.jpg")


def options(**more: Any) -> ChaosOptions:
    return ChaosOptions(AmqpSettings(), CAT.parent, Path("/nowhere"), events=100, seed=1, **more)


async def restart(_pause_s: float) -> bool:
    return True


def test_what_is_not_named_takes_no_part_and_is_reported() -> None:
    assert len(options().missing) == 4
    assert FaultKind.BROKER not in options().kinds
    assert "make chaos" in options().missing[-1]
    assert FaultKind.BROKER not in options().kinds
    assert {tenant.name for tenant in options().tenants} == {"local", "strict", "switched-off"}


def test_with_everything_named_nothing_is_missing_and_every_kind_of_fault_is_asked_for() -> None:
    named = options(
        google_endpoint="http://g", microsoft_endpoint="http://m", served="http://s", restart_broker=restart
    )
    assert (named.missing, named.not_asked_for, named.kinds) == ([], {}, list(FaultKind))
    assert {tenant.name for tenant in named.tenants} == {"local", "strict", "switched-off", "both", "cloud"}


def test_a_kind_of_fault_that_is_left_out_is_not_asked_for_and_reported() -> None:
    without = options(left_out=frozenset({FaultKind.CONNECTION}))
    assert FaultKind.CONNECTION not in without.kinds
    assert set(without.not_asked_for) == {FaultKind.CONNECTION}


def test_a_photograph_that_one_of_a_tenants_providers_does_not_tag_is_not_used_for_that_tenant() -> None:
    (local, *_, both) = tenants("http://g", None)
    answers = {
        (local, CAT): {TF: "tabby"},
        (local, CUP): {TF: "espresso"},
        (both, CAT): {TF: "tabby", GOOGLE: "Cat"},
        (both, CUP): {TF: "espresso"},
    }
    assert usable(answers, {"cat.jpg": "tabby"}) == {
        ("local", CAT): {TF: "tabby"},
        ("local", CUP): {TF: "espresso"},
        ("both", CAT): {TF: "tabby", GOOGLE: "Cat"},
    }


def test_a_model_that_contradicts_what_is_known_of_a_photograph_ends_the_run_before_it_begins() -> None:
    (local, *_) = tenants(None, None)
    with pytest.raises(Misconfigured, match=r"cat\.jpg should be 'tabby', and undisturbed it is 'dog'"):
        usable({(local, CAT): {TF: "dog"}}, {"cat.jpg": "tabby"})


def test_a_tenant_that_can_tag_no_photograph_ends_the_run_before_it_begins() -> None:
    (local, *_, both) = tenants("http://g", None)
    with pytest.raises(Misconfigured, match="google_cloud_vision and tensorflow"):
        usable({(local, CAT): {TF: "tabby"}, (both, CAT): {TF: "tabby"}}, {})


def test_photographs_may_be_named_by_a_relative_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "photographs").mkdir()
    (tmp_path / "photographs" / "cat.jpg").write_bytes(b"")
    monkeypatch.chdir(tmp_path)
    assert photographs_in(Path("photographs")) == [tmp_path.resolve() / "photographs" / "cat.jpg"], (
        "workers read it too"
    )
