"""`autotag check`, where it needs no service: what it finds out from the settings alone."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.models import write_package
from worker.diagnostics import preflight
from worker.settings import Settings, load_settings

KEY = "k" * 32


@pytest.mark.parametrize(
    ("amqp", "status"),
    [
        ({}, "warning"),
        ({"password": "guest"}, "warning"),
        ({"password": ""}, "warning"),
        ({"password": "secret"}, "ok"),
        ({"url": "amqp://autotag:secret@host/"}, "ok"),
        ({"header_key": KEY}, "ok"),
    ],
    ids=str,
)
async def test_a_header_key_made_of_a_password_that_everybody_knows_is_a_warning(
    amqp: dict[str, Any], status: str
) -> None:
    check = await preflight._headers(Settings.model_validate({"amqp": amqp}))
    assert check.status == status
    assert ("amqp.header_key" in check.message) == ("header_key" in amqp or status == "warning")
    assert KEY not in check.message


@pytest.mark.parametrize(
    ("level", "sandbox", "status", "word"),
    [
        ("seccomp", "best", "ok", "seccomp"),
        ("landlock", "best", "warning", "libseccomp2"),
        ("limits", "best", "warning", "Landlock"),
        ("none", "best", "warning", "new privileges"),
        ("none", "off", "warning", "decoder.sandbox is off"),
    ],
)
def test_a_sandbox_that_is_weaker_than_it_could_be_is_a_warning(
    level: str, sandbox: str, status: str, word: str
) -> None:
    check = preflight.sandbox_result(Settings.model_validate({"decoder": {"sandbox": sandbox}}), level)
    assert check.status == status
    assert word in check.message


async def test_a_token_that_can_be_guessed_is_a_warning() -> None:
    check = await preflight._http(Settings.model_validate({"http": {"token": "abcdefgh"}}))
    assert (check.status, "openssl rand" in check.message) == ("warning", True)
    assert (await preflight._http(Settings.model_validate({"http": {"token": "a" * 16}}))).status == "ok"


async def test_directories_that_can_be_made_are_no_problem(tmp_path: Path) -> None:
    check = await preflight._directories(Settings(state_dir=tmp_path / "not" / "there" / "yet"))
    assert check.status == "ok"
    assert not os.listdir(tmp_path)


async def test_a_socket_whose_path_is_too_long_is_reported_before_anything_is_started(tmp_path: Path) -> None:
    check = await preflight._directories(Settings(state_dir=tmp_path / ("ü" * 60)))
    assert check.status == "failed"
    assert "that of a socket at most 107; set `control_socket`" in check.message


async def test_a_state_directory_below_a_file_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check = await preflight._directories(Settings(state_dir=tmp_path / "file" / "state"))
    assert check.status == "failed"
    assert f"{tmp_path / 'file'} is no directory; set `state_dir`" in check.message
    assert "set `control_socket`" in check.message


async def test_a_model_that_is_not_built_and_cannot_be_is_reported(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    settings = Settings.model_validate(
        {"cache_dir": tmp_path / "file" / "cache", "defaults": {"tensorflow": {"enabled": True}}}
    )
    check = await preflight._model(settings)
    assert check.status == "failed"
    assert "set `cache_dir`" in check.message


@pytest.mark.parametrize(
    ("models", "status", "said"),
    [
        (["efficientnet-lite2"], "failed", "pip install autotag-model-efficientnet-lite2"),
        (["nanodet"], "failed", "pip install autotag-model-nanodet"),
        (["OWN", "nanodet"], "ok", "pip install autotag-model-nanodet"),
        (["efficientnet-lite2", "nanodet"], "failed", "pip install 'autotag-worker[tensorflow]'"),
    ],
    ids=str,
)
async def test_without_tensorflow_a_model_that_has_to_be_built_fails_and_a_detector_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, models: list[str], status: str, said: str
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    (tmp_path / "model").write_text("weights")
    write_package(tmp_path, "model", ["cat"])
    named = [str(tmp_path) if each == "OWN" else each for each in models]
    settings = {"cache_dir": str(tmp_path / "cache"), "tensorflow": {"models": named}}
    check = await preflight._model(Settings.model_validate(settings | {"defaults": {"tensorflow": {"enabled": True}}}))
    assert check.status == status
    assert said in check.message


@pytest.mark.parametrize("sandbox", ["best", "off"])
async def test_a_model_of_ones_own_that_is_a_program_is_a_warning(tmp_path: Path, sandbox: str) -> None:
    (tmp_path / "model").write_text("a graph")
    write_package(tmp_path, "model", ["cat"], runtime="graph_def")
    tensorflow = {"model": str(tmp_path), "sandbox": sandbox}
    check = await preflight._model(
        Settings.model_validate({"tensorflow": tensorflow, "defaults": {"tensorflow": {"enabled": True}}})
    )
    assert check.status == "warning"
    assert "it is a graph_def, which is a program" in check.message
    assert ("nothing keeps it from" in check.message) == (sandbox == "off")


async def test_a_model_of_ones_own_that_is_no_program_is_fine(tmp_path: Path) -> None:
    (tmp_path / "model").write_text("weights")
    write_package(tmp_path, "model", ["cat"])
    check = await preflight._model(
        Settings.model_validate({"tensorflow": {"model": str(tmp_path)}, "defaults": {"tensorflow": {"enabled": True}}})
    )
    assert check.status == "ok"


@pytest.mark.parametrize(
    ("acme", "amqp", "status", "words"),
    [
        ({}, {}, "ok", "every publisher may speak for every instance"),
        ({"users": ["dms"]}, {"password": "secret"}, "ok", "bound: acme; every publisher may speak for defaults"),
        ({"users": []}, {"password": "secret"}, "ok", "bound: acme"),
        ({"users": ["dms"]}, {"password": "guest"}, "warning", "can be forged"),
        (
            {"virtual_hosts": ["/", "b"]},
            {"url": "amqp://a:secret@h/a"},
            "warning",
            "no event of acme is taken on the virtual host 'a'",
        ),
    ],
)
async def test_the_instances_that_are_bound_to_their_publishers_are_named(
    acme: dict[str, Any], amqp: dict[str, Any], status: str, words: str
) -> None:
    settings = Settings.model_validate({"amqp": amqp, "instances": {"acme": {"publishers": acme}}})
    check = await preflight._publishers(settings)
    assert check.status == status
    assert words in check.message


async def test_the_sources_of_each_instance_are_looked_at(tmp_path: Path) -> None:
    tree = {"sources": {"path_roots": [str(tmp_path)], "url_allowed_hosts": ["b.example:9000"]}}
    check = await preflight._sources(Settings.model_validate({"instances": {"acme": tree, "plain": {}}}))
    assert check.status == "ok"
    assert check.message == (
        f"paths below: none; hosts: none; inline: always; acme: paths below: {tmp_path}; hosts: b.example:9000"
    )
    tree["sources"]["path_roots"] = [str(tmp_path / "missing")]
    check = await preflight._sources(Settings.model_validate({"instances": {"acme": tree}}))
    assert (check.status, "missing" in check.message) == ("failed", True)


@pytest.mark.parametrize(
    ("acme", "status", "words"),
    [
        ({"tensorflow": {"enabled": True}}, "ok", "in order"),
        ({"tensorflow": {"enabled": True, "confidence_threshold": 0.1}}, "warning", "of acme is below 0.4"),
        ({"tensorflow": {"confidence_threshold": 0.1}}, "ok", "in order"),
        ({"tensorflow": {"enabled": True, "confidence_threshold": 0.1, "tags": "labels"}}, "ok", "in order"),
        ({"labels": {"only": ["cat", "our product"]}}, "warning", "1 terms that are no concepts, such as our product"),
        ({"labels": {"only": ["cat"]}}, "ok", "in order"),
    ],
)
async def test_thresholds_that_were_meant_for_scores_and_terms_that_mean_nothing_are_warnings(
    acme: dict[str, Any], status: str, words: str
) -> None:
    check = await preflight._tags(Settings.model_validate({"instances": {"acme": acme}}))
    assert check.status == status
    assert words in check.message


async def test_rules_files_are_named_with_the_number_of_rules(tmp_path: Path) -> None:
    (tmp_path / "rules.toml").write_text('drop = ["a", "b"]\n')
    (tmp_path / "autotag.toml").write_text(
        f"[instances.acme.labels]\nrules_file = {json.dumps(str(tmp_path / 'rules.toml'))}\ndrop = ['c']\n"
    )
    check = await preflight._tags(load_settings(environ={}, directory=tmp_path).settings)
    assert check.status == "ok"
    assert f"acme has 3 rules, with {tmp_path / 'rules.toml'}" in check.message


@pytest.mark.parametrize(
    ("tree", "status", "words"),
    [
        ({}, "warning", "wait in its queue"),
        ({"while_nothing_is_switched_on": "skip"}, "warning", "answered `skipped`"),
        ({"instances": {"acme": {"enabled": False, "tensorflow": {"enabled": True}}}}, "warning", "answered `skipped`"),
        ({"enabled": False}, "warning", "answered `skipped`"),
        ({"instances": {"acme": {"tensorflow": {"enabled": True}}}}, "ok", "acme: tensorflow"),
    ],
)
async def test_it_says_what_becomes_of_events_that_nothing_is_switched_on_for(
    tree: dict[str, Any], status: str, words: str
) -> None:
    check = await preflight._switches(Settings.model_validate(tree))
    assert check.status == status
    assert words in check.message
