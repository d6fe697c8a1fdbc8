"""Which images a candidate sees, and which models run beside it."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from worker.errors import Misconfigured
from worker.models.manifest import Manifest, ModelPackage
from worker.models.selection import LocalModels
from worker.tagging.shadow import of_share, replaced


def package(name: str, kind: str = "classifier", reads: str | None = None, features: bool = False) -> ModelPackage:
    digest = hashlib.sha256(name.encode()).hexdigest()
    manifest = Manifest.model_validate(
        {
            "name": name,
            "kind": kind,
            "runtime": "litert",
            "model": {"file": "m", "sha256": digest},
            "labels": {"file": "l", "sha256": digest},
            "input": {"size": 8, "features": reads},
            "output": {"activation": "logits", "features": "f" if features else None},
            "licence": "none",
            "source": "a test",
        }
    )
    found = ModelPackage(Path("/nowhere") / name, manifest)
    found.__dict__["described_labels"] = ()
    return found


def names(models: LocalModels) -> list[str]:
    return [each.manifest.name for each in models.packages]


def test_the_share_is_decided_by_the_digest_alone_and_grows_with_it() -> None:
    digests = [hashlib.sha256(str(number).encode()).hexdigest() for number in range(4000)]
    few, many = ([each for each in digests if of_share(each, share)] for share in (0.1, 0.5))
    assert set(few) < set(many)
    assert 320 < len(few) < 480
    assert [each for each in digests if of_share(each, 0.0)] == []
    assert [each for each in digests if of_share(each, 1.0)] == digests
    assert of_share("f" * 64, 1.0)


def test_the_candidate_takes_the_place_of_the_models_of_its_kind() -> None:
    real = LocalModels((package("lite2"), package("nano", "detector")))
    assert names(replaced(real, package("lite0"))) == ["lite0", "nano"]
    assert names(replaced(real, package("nano2", "detector"))) == ["nano2", "lite2"]


def test_a_model_that_reads_the_features_of_one_that_is_gone_is_left_out() -> None:
    real = LocalModels((package("lite2", features=True), package("kind", "attributes", reads="lite2")))
    assert names(replaced(real, package("lite0"))) == ["lite0"]
    assert names(replaced(real, package("kind2", "attributes", reads="lite2"))) == ["lite2", "kind2"]


def test_a_candidate_that_is_in_use_already_is_refused() -> None:
    with pytest.raises(Misconfigured, match="in use already"):
        replaced(LocalModels((package("lite2"),)), package("lite2"))
