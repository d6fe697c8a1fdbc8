"""`autotag model`: the models there are, and how to get them."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from worker.cli.context import CliContext
from worker.cli.exit_codes import ExitCode
from worker.errors import Misconfigured

if TYPE_CHECKING:
    from worker.models.manifest import ModelPackage

app = typer.Typer(no_args_is_help=True, help="The models: list, build, install, verify.")

Json = Annotated[bool, typer.Option("--json", help="JSON, for scripts.")]
Name = Annotated[
    str | None,
    typer.Argument(help="A name of `autotag model list`; unset: the one the settings name.", show_default=False),
]


@contextmanager
def _clear_errors() -> Iterator[None]:
    try:
        yield
    except Misconfigured as error:
        print(f"autotag: {error}", file=sys.stderr)
        raise typer.Exit(ExitCode.MODEL) from None


@app.command("list")
def list_models(context: typer.Context, as_json: Json = False) -> None:
    """The models known by name, and which are there."""
    from rich.console import Console
    from rich.table import Table

    from worker.models.catalogue import known_models

    settings = CliContext.of(context).load().settings
    models = known_models(settings.cache_dir)
    if as_json:
        for each in models:
            line = {"name": each.name, "kind": each.kind, "present": each.present, "identity": each.identity}
            print(
                json.dumps(line | {"directory": str(each.directory), "in_use": each.name == settings.tensorflow.model})
            )
        return
    table = Table("", "model", "kind", "here as")
    for each in models:
        how = "autotag model build" if each.kind == "built in" else "autotag model install"
        mark = "●" if each.name == settings.tensorflow.model else ""
        table.add_row(mark, each.name, each.kind, each.identity or f"[dim]no: {how} {each.name}[/dim]")
    Console().print(table)


@app.command("build")
def build(context: typer.Context, name: Name = None, as_json: Json = False) -> None:
    """Build a built-in model from its weights, once, showing how far it is. `autotag run` does it by itself."""
    from worker.cli.progress import model_progress
    from worker.models.build import ensure_model

    settings = CliContext.of(context).load().settings
    name = name or settings.tensorflow.model
    with _clear_errors(), model_progress(name) as progress:
        package = ensure_model(name, settings.cache_dir, progress)
    _show(package, as_json)


@app.command("install")
def install(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="A downloadable model of `autotag model list`.")],
    url: Annotated[str | None, typer.Option(help="Another place to fetch the archive from, such as a mirror.")] = None,
    as_json: Json = False,
) -> None:
    """Download a model and check it against its pinned hashes; goes on where an earlier try ended.

    The settings `models.NAME.url` and `.sha256` name the archive.
    """
    from worker.cli.progress import model_progress
    from worker.models.install import install as fetch

    settings = CliContext.of(context).load().settings
    named = getattr(settings.models, name, None)
    with _clear_errors(), model_progress(name) as progress:
        package = fetch(
            name,
            settings.cache_dir,
            url=url or (named.url if named else None),
            sha256=named.sha256 if named and url is None else None,
            progress=progress,
        )
    _show(package, as_json)


@app.command("verify")
def verify(context: typer.Context, name: Name = None, as_json: Json = False) -> None:
    """Compare a model's files with the hashes in its manifest."""
    from worker.models.catalogue import find_package

    settings = CliContext.of(context).load().settings
    with _clear_errors():
        package = find_package(name or settings.tensorflow.model, settings.cache_dir)
        package.verify()
    _show(package, as_json)


def _show(package: ModelPackage, as_json: bool) -> None:
    if as_json:
        manifest = package.manifest.model_dump(mode="json")
        print(json.dumps({"identity": package.identity, "directory": str(package.directory), "manifest": manifest}))
    else:
        print(f"{package.identity} is whole, in {package.directory}")
