"""`autotag model`: lists, builds, installs and verifies models."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.cli.output import cell, print_error, print_json, print_line
from worker.errors import Misconfigured

if TYPE_CHECKING:
    from worker.models.manifest import ModelPackage

app = typer.Typer(no_args_is_help=True, help="The models: list, build, install, verify.")

_AsJson = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]
_Name = Annotated[
    str | None,
    typer.Argument(help="A name of `autotag model list`; unset: the one the settings name.", show_default=False),
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

    from worker.models.catalogue import known_models

    settings = CliContext.of(context).load().settings
    models = known_models(settings.cache_dir)
    if as_json:
        for each in models:
            line = {"name": each.name, "kind": each.kind, "present": each.present, "identity": each.identity}
            print_json(line | {"directory": str(each.directory), "in_use": each.name == settings.tensorflow.model})
        return
    table = Table("", "model", "kind", "here as")
    for each in models:
        how = "autotag model build" if each.kind == "built in" else "autotag model install"
        mark = "●" if each.name == settings.tensorflow.model else ""
        here = cell(each.identity) if each.identity else f"[dim]no: {how} {each.name}[/dim]"
        table.add_row(mark, each.name, each.kind, here)
    Console().print(table)


@app.command("build")
def build(context: typer.Context, name: _Name = None, as_json: _AsJson = False) -> None:
    """Build a built-in model from its weights, unless it is built already. `autotag run` does this by itself."""
    from worker.cli.progress import model_progress
    from worker.models.build import ensure_model

    settings = CliContext.of(context).load().settings
    name = name or settings.tensorflow.model
    with _exit_on_misconfigured(), model_progress(name) as on_progress:
        package = ensure_model(name, settings.cache_dir, on_progress)
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

    settings = CliContext.of(context).load().settings
    with _exit_on_misconfigured():
        package = find_package(name or settings.tensorflow.model, settings.cache_dir)
        package.verify()
    _show(package, as_json)


def _show(package: ModelPackage, as_json: bool) -> None:
    if as_json:
        manifest = package.manifest.model_dump(mode="json")
        print_json({"identity": package.identity, "directory": str(package.directory), "manifest": manifest})
    else:
        print_line(f"{package.identity} is intact, in {package.directory}")
