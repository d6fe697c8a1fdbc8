"""What a model's outputs are called: label files, and the built-in names of the 1,000 ImageNet classes.

A label file has one label a line, in the order of the model's outputs; optionally the WordNet id and a tab before it.

`imagenet.txt` holds the classes in the order of their WordNet ids, which is the order of the models' outputs. It was
made by `scripts/make_imagenet_labels.py`: each name is the first word that WordNet 3.0 (Debian's `wordnet-base`) lists
for the id, so `n02123394` is `Persian cat`. Where two classes share a first word, or it means something else to most
people, the script says what to use instead: `crane (bird)` and `crane (machine)`, `notebook computer`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from worker.errors import Misconfigured

IMAGENET = Path(__file__).with_name("imagenet.txt")
MAX_FILE_BYTES = 16 << 20
_WITH_ID = re.compile(r"(?P<id>n\d{8})\t(?P<name>.+)")


@dataclass(frozen=True, slots=True)
class Label:
    """What one output of a model stands for; `wordnet_id` where the file tells it."""

    name: str
    wordnet_id: str | None = None


def read_labels(path: Path) -> tuple[Label, ...]:
    """Read a label file. Raises `Misconfigured` if it is missing, not UTF-8, too large, or has an empty line."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise Misconfigured(f"cannot read the labels {path}: {error.strerror}", reason="model_labels") from error
    if len(data) > MAX_FILE_BYTES:
        raise Misconfigured(f"the label file {path} is larger than {MAX_FILE_BYTES} bytes", reason="model_labels")
    try:
        lines = data.decode("utf-8").removesuffix("\n").split("\n")
    except UnicodeDecodeError as error:
        raise Misconfigured(f"the label file {path} is not UTF-8: {error}", reason="model_labels") from error
    return tuple(_label(path, number, line.rstrip("\r")) for number, line in enumerate(lines, 1))


def _label(path: Path, number: int, line: str) -> Label:
    if not line.strip():
        raise Misconfigured(f"the label file {path} has an empty line {number}", reason="model_labels")
    if found := _WITH_ID.fullmatch(line):
        return Label(found["name"], found["id"])
    return Label(line)
