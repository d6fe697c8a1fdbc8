"""The pools that give work to supervised children: decoders and the model."""

from __future__ import annotations

from worker.crews.crew import ChildState, Observer, Recycling
from worker.crews.decoder_crew import Decoded, DecoderCrew, DecoderOptions, ImageKilledDecoder
from worker.crews.model_crew import ModelCrew, ModelOptions

__all__ = [
    "ChildState",
    "Decoded",
    "DecoderCrew",
    "DecoderOptions",
    "ImageKilledDecoder",
    "ModelCrew",
    "ModelOptions",
    "Observer",
    "Recycling",
]
