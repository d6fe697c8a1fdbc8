"""Every label explained: why it became a tag, or why not."""

from __future__ import annotations

import pytest

from worker.settings import InstanceSettings
from worker.tagging.explain import LOWEST_CONFIDENCE
from worker.tagging.tagger import with_low_threshold


@pytest.mark.parametrize(("threshold", "asked_for"), [(0.3, 0.005), (0.001, 0.001), (0.0, 0.0)])
def test_the_local_model_is_asked_for_what_it_is_hardly_sure_of_too(threshold: float, asked_for: float) -> None:
    instance = InstanceSettings(tensorflow={"enabled": True, "confidence_threshold": threshold})

    asked_as = with_low_threshold(instance, LOWEST_CONFIDENCE)

    assert asked_as.tensorflow.confidence_threshold == asked_for
    assert asked_as.model_copy(update={"tensorflow": instance.tensorflow}) == instance, "nothing else is different"
