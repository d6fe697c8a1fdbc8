"""A model package: a directory with a model, its labels, and `manifest.json`, which describes its input and output.

Everything else that the rest of Autotag knows about a model comes from here, so this module needs neither numpy nor
TensorFlow.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from worker.errors import Misconfigured
from worker.images.requests import Fit, Interpolation, PixelRecipe
from worker.models.labels import Label, read_labels

MANIFEST_FILE = "manifest.json"
_GROUP = r"^[a-z][a-z0-9_-]{0,49}$"
_HASH_CHUNK_BYTES = 1 << 20


class RuntimeName(StrEnum):
    """The runtime of a model: LiteRT, or TensorFlow with one of its two file formats."""

    LITERT = "litert"
    SAVED_MODEL = "saved_model"
    GRAPH_DEF = "graph_def"

    @property
    def runs_programs(self) -> bool:
        """Whether its models are programs: TensorFlow's graphs may hold operations that read and write files."""
        return self is not RuntimeName.LITERT


def _inside_package(value: str) -> str:
    """Refuse a file name that leads out of the package's directory: a manifest is not trusted."""
    path = PurePosixPath(value)
    if path.is_absolute() or ".." in path.parts or value in ("", ".") or "\0" in value:
        raise ValueError("must be a file inside the package's directory")
    return value


def _without_cycle(above: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    try:
        TopologicalSorter(above).prepare()
    except CycleError as error:
        raise ValueError(f"terms are above each other in a circle: {' > '.join(error.args[1])}") from error
    return above


FileName = Annotated[str, AfterValidator(_inside_package)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _ManifestModel(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class ModelKind(StrEnum):
    """What a model's outputs say about a picture."""

    CLASSIFIER = "classifier"  # which one of its labels it shows: what is above several has their sum
    DETECTOR = "detector"  # which things are in it: what is above several is as sure as the surest
    ATTRIBUTES = "attributes"  # what is so of the picture as a whole, one of its labels: as a classifier's


class PinnedFile(_ManifestModel):
    """A file, or for a SavedModel a directory, and its required SHA-256."""

    file: FileName
    sha256: Sha256 = Field(description="For a directory: over its files' hashes and names, as `tree_sha256` does.")


class ModelInput(_ManifestModel):
    """The input: `(pixel - mean) / scale`, of images rendered by `fit`, `margin` and `interpolation`."""

    name: str | None = Field(None, description="Tensor name; needed for a GraphDef, else only where there are several.")
    features: str | None = Field(
        None, description="Name of the model whose `output.features` are the input, in place of pixels."
    )
    size: int = Field(ge=8, le=4096, description="Side of the square input in pixels; the number of features.")
    channels: Literal["rgb", "bgr"] = "rgb"
    dtype: Literal["uint8", "int8", "float32"] = "float32"
    mean: float = 0.0
    scale: float = Field(1.0, gt=0)
    fit: Fit = Fit.CROP
    fill: int = Field(0, ge=0, le=255, description="Of the bars beside a padded image: 0 is black, 255 white.")
    margin: int = Field(0, ge=0, le=4096, description="A crop takes size / (size + margin) of the shorter side.")
    interpolation: Interpolation = Interpolation.BICUBIC


class ModelOutput(_ManifestModel):
    """The output, and how it is converted to one confidence per label."""

    name: str | None = Field(None, description="Tensor name; needed for a GraphDef, else only where there are several.")
    features: str | None = Field(None, description="Tensor with the features that another model may read; unset: none.")
    activation: Literal["logits", "probabilities", "sigmoid"] = Field(
        description="`logits`: of labels of which one is true; `sigmoid`: of labels each by itself."
    )
    temperature: float = Field(1.0, gt=0, le=100, description="Logits are divided by this first.")
    label_offset: int = Field(0, ge=0, description="Outputs before the first label, such as a background class.")
    ignored_labels: tuple[str, ...] = Field((), description="Labels that are never tags.")


class Curve(_ManifestModel):
    """From a score to a confidence: a logistic curve over the score's logit."""

    slope: float = Field(gt=0, le=100)
    offset: float = Field(ge=-100, le=100)


class Calibration(_ManifestModel):
    """How scores become confidences: of a label, and of a broader concept, whose score is the sum of its labels'."""

    label: Curve
    parent: Curve


class Manifest(_ManifestModel):
    """The contents of `manifest.json`."""

    format: Literal[1] = 1
    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")
    kind: ModelKind = Field(ModelKind.CLASSIFIER, description="What its outputs say about a picture.")
    concepts: dict[str, str] = Field(
        default_factory=dict, description="What labels mean, by name: ids of the vocabulary's concepts."
    )
    hierarchy: Annotated[dict[str, tuple[str, ...]], AfterValidator(_without_cycle)] = Field(
        default_factory=dict,
        description="Of a label or broader term, by name, the terms or ids of concepts that are above it; beside what "
        "the vocabulary knows to be above a concept.",
    )
    group: str = Field("photograph", pattern=_GROUP, description="What its tags are about, as `suppresses` names it.")
    suppresses: tuple[Annotated[str, Field(pattern=_GROUP)], ...] = Field(
        (), description="Groups whose tags are left out where one of this model's is sure enough to be a tag."
    )
    build: str | None = Field(None, description="What the package was built from, for those built here.")
    runtime: RuntimeName
    model: PinnedFile
    labels: PinnedFile
    input: ModelInput
    output: ModelOutput
    calibration: Calibration | None = Field(None, description="Without it scores are taken for confidences.")
    licence: str
    source: str
    checked: dict[str, float | int | str] = Field(
        default_factory=dict, description="How it was calibrated and checked, for people."
    )

    @property
    def identity(self) -> str:
        """Name and hash: two results with the same identity come from the same model file."""
        return f"{self.name}@{self.model.sha256[:12]}"

    def recipe(self) -> PixelRecipe:
        """How decoders must render an image for this model."""
        wanted = self.input
        return PixelRecipe(wanted.size, wanted.fit, wanted.margin, wanted.interpolation, wanted.fill)


class ModelMissing(Misconfigured):
    """The model does not exist, or has not been built or installed yet."""

    def __init__(self, message: str) -> None:
        super().__init__(message, reason="model_missing")


@dataclass(frozen=True)
class ModelPackage:
    """A model package on disk. Loading reads the manifest; `verify` hashes the files."""

    directory: Path
    manifest: Manifest

    @classmethod
    def load(cls, directory: Path) -> ModelPackage:
        """Read the manifest of a package. Raises `ModelMissing` or `Misconfigured`, naming the key that is wrong."""
        path = directory / MANIFEST_FILE
        try:
            text = path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            raise ModelMissing(f"{directory} is not a model package: it has no {MANIFEST_FILE}") from None
        except OSError as error:
            raise ModelMissing(f"cannot read {path}: {error.strerror}") from error
        try:
            return cls(directory, Manifest.model_validate_json(text))
        except ValidationError as error:
            raise Misconfigured(f"{path}: {_first_problem(error)}", reason="model_manifest") from error

    @property
    def model_path(self) -> Path:
        """The model file, or the directory of a SavedModel."""
        return self.directory / self.manifest.model.file

    @property
    def identity(self) -> str:
        """See `Manifest.identity`."""
        return self.manifest.identity

    @cached_property
    def labels(self) -> tuple[str, ...]:
        """The labels' names, in the order of the model's outputs after `label_offset`."""
        return tuple(label.name for label in self.described_labels)

    @cached_property
    def described_labels(self) -> tuple[Label, ...]:
        """The labels with what their file says of them, in the same order."""
        return read_labels(self.directory / self.manifest.labels.file)

    def verify(self) -> None:
        """Hash the model and its labels. Raises `Misconfigured` naming the file that is missing or differs."""
        for pinned in (self.manifest.model, self.manifest.labels):
            path = self.directory / pinned.file
            try:
                found = tree_sha256(path) if path.is_dir() else file_sha256(path)
            except OSError as error:
                raise ModelMissing(f"model {self.manifest.name}: cannot read {path}: {error.strerror}") from error
            if found != pinned.sha256:
                raise Misconfigured(
                    f"model {self.manifest.name}: {path} has SHA-256 {found}, its manifest says {pinned.sha256}. "
                    "The file was changed or damaged: build or install the model again",
                    reason="model_hash_mismatch",
                )


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Write `manifest.json`. It is written last, so that a directory with a manifest is a complete package."""
    text = json.dumps(manifest.model_dump(mode="json"), indent=2, ensure_ascii=False)
    (directory / MANIFEST_FILE).write_text(text + "\n", encoding="utf-8")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, read in chunks. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_HASH_CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def tree_sha256(directory: Path) -> str:
    """SHA-256 of the lines `<hash>  <relative path>` (`sha256sum`'s format) of a directory's files, sorted by path."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    lines = (f"{file_sha256(path)}  {path.relative_to(directory).as_posix()}\n" for path in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _first_problem(error: ValidationError) -> str:
    """The first problem with a manifest, in one line that names the key."""
    problem: Any = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in problem["loc"]) or "the manifest"
    value = problem["input"]
    shown = f" (it is {value!r:.80})" if not isinstance(value, dict | bytes) else ""
    return f"{key}: {problem['msg']}{shown}"
