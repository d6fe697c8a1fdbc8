"""The model's file is damaged while the service runs: no successor can start, so the model is disabled at once."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

from tests.support.models import built
from tests.support.polling import until
from tests.support.processes import gone, send
from tests.support.scene import scene


def test_a_damaged_model_disables_at_once_with_the_reason_and_events_wait_until_it_is_mended(
    broker: str, queue_prefix: str, tmp_path: Path, photographs: dict[str, Path]
) -> None:
    package = tmp_path / "package"
    shutil.copytree(built("efficientnet-lite0").directory, package)
    with scene(broker, queue_prefix, tmp_path / "run", photographs, TENSORFLOW__MODEL=str(package)) as it:
        # Given a model whose file changes under the running child
        (model,) = package.glob("*.tflite")
        whole = model.read_bytes()
        model.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
        child = it.child("model")
        it.load(50)
        # When the child dies
        send(child, signal.SIGKILL)
        until(lambda: gone(child), "it is gone")
        # Then the model is disabled after one failed start, and the service consumes no events
        status = until(
            lambda: (s := it.service.status() or {}).get("model", {}).get("disabled") and not s["ready"] and s,
            "the model is disabled",
        )
        assert "sha" in status["model"]["disabled"].lower() or "digest" in status["model"]["disabled"].lower()
        assert len(it.logged("child crashed")) == 2
        waiting = it.load(50)
        # And when it has been mended and reset, all are answered
        model.write_bytes(whole)
        assert it.service.autotag("reset").returncode == 0
        it.ledger.settle()
        assert it.ledger.statuses(waiting) == {"tagged"}
        assert it.ledger.dead == {}
