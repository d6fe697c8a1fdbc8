"""The local models in use: one package, or several that look at the same images and answer as one model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from worker.errors import Misconfigured
from worker.images.requests import PixelRecipe
from worker.models.catalogue import OTHER_NAMES
from worker.models.manifest import ModelPackage

MOST_OUTPUTS = 1 << 16


@dataclass(frozen=True)
class LocalModels:
    """Packages in the order in which their outputs are numbered; one that reads another's features is behind it."""

    packages: tuple[ModelPackage, ...]

    def __post_init__(self) -> None:
        """Raises `Misconfigured` for packages that do not go together."""
        seen: dict[str, ModelPackage] = {}
        for package in self.packages:
            name, wanted = package.manifest.name, package.manifest.input.features
            if name in seen:
                raise _wrong(f"two of the models are called {name}: `tensorflow.models` may name each once")
            if wanted is not None:
                _check_features(package, seen.get(wanted), wanted)
            seen[name] = package
        if not any(package.manifest.input.features is None for package in self.packages):
            raise _wrong("none of the models looks at the pixels of an image: `tensorflow.models` has to name one")
        if (outputs := sum(len(package.labels) for package in self.packages)) > MOST_OUTPUTS:
            raise _wrong(f"the models have {outputs} labels together; at most {MOST_OUTPUTS} can be numbered")

    @property
    def name(self) -> str:
        """Of all, for people and metrics."""
        return "+".join(package.manifest.name for package in self.packages)

    @property
    def identity(self) -> str:
        """See `Manifest.identity`: results with the same one come from the same files."""
        return "+".join(package.identity for package in self.packages)

    def named(self, name: str) -> ModelPackage | None:
        """The one that the settings call by a name of the catalogue, or by its directory."""
        name = OTHER_NAMES.get(name, name)
        directory = Path(name).expanduser()
        return next((each for each in self.packages if each.manifest.name == name or each.directory == directory), None)

    @cached_property
    def recipes(self) -> tuple[PixelRecipe, ...]:
        """How decoders must render an image for those that look at pixels."""
        manifests = [package.manifest for package in self.packages]
        return tuple(manifest.recipe() for manifest in manifests if manifest.input.features is None)

    def verify(self) -> None:
        """Hash the files of all. Raises `Misconfigured`, naming the file that is missing or differs."""
        for package in self.packages:
            package.verify()


def _check_features(package: ModelPackage, source: ModelPackage | None, wanted: str) -> None:
    name = package.manifest.name
    if source is None:
        raise _wrong(
            f"model {name} reads the features of {wanted}, which is not before it: name {wanted} first in "
            f"`tensorflow.models`, or leave {name} out"
        )
    if source.manifest.output.features is None:
        raise _wrong(f"model {name} reads the features of {wanted}, which has none (`output.features` is not set)")


def in_order(packages: Sequence[ModelPackage]) -> tuple[ModelPackage, ...]:
    """Those that look at pixels first, each group as given."""
    return tuple(sorted(packages, key=lambda package: package.manifest.input.features is not None))


def _wrong(message: str) -> Misconfigured:
    return Misconfigured(message, reason="model_manifest")
