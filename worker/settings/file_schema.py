"""The JSON Schema of a settings file, for editors: which keys there are, what each does and allows.

It describes how values are best written. Loading also takes other spellings (a number as text, a choice in capitals),
and looks at what no schema says, such as whether two settings contradict each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from worker.settings.base import Section
from worker.settings.root import Settings
from worker.settings.schema import extra, is_list, is_secret, named_table, table_of, unit

FILE_NAME = "autotag.schema.json"

_TEXT = {"type": "string"}
_FOR_OUR_OWN_PAGE = frozenset({"allowed", "unit", "default_text", "named", "ge"})
_OF_NO_USE_IN_TOML = frozenset({"title", "format", "writeOnly", "required"})
"""What is required may come from another source, and a format says nothing that editors check."""

_NULL = {"type": "null"}


def file_schema() -> dict[str, Any]:
    """The schema: TOML's tables are JSON's objects. A table of the operator's own names takes any name."""
    tree = Settings.model_json_schema()
    definitions = tree.pop("$defs")
    tables = _tables(Settings)
    for name, table in tables.items():
        _describe(definitions[name], table)
    _describe(tree, Settings)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": "urn:autotag:schema:settings:v1",
        **_plain(tree, ()),
        "title": "Settings of Autotag (autotag.toml)",
        "description": "docs/settings.md explains them and says where else settings come from.",
        "$defs": {name: _plain(each, ()) for name, each in sorted(definitions.items())},
    }


def _tables(table: type[Section]) -> dict[str, type[Section]]:
    """Every class of tables that is used, by its name."""
    found: dict[str, type[Section]] = {}
    for field in table.model_fields.values():
        inner = table_of(field) or named_table(field)
        if inner is not None:
            found |= {inner.__name__: inner, **_tables(inner)}
    return found


def _describe(tree: dict[str, Any], table: type[Section]) -> None:
    """Say of each setting what a reader of settings.md is given too, and take the spellings that are usual in TOML."""
    for name, field in table.model_fields.items():
        node = tree["properties"][name]
        if table_of(field) is not None or named_table(field) is not None:
            node.pop("default", None)
            continue
        words = unit(name, field)
        sentences = [field.description or ""]
        if words:
            sentences.append(f"In {words}.")
        if is_secret(field):
            sentences.append("Secret: better in a file of the secrets directory than here.")
            node.pop("default", None)
        if "default_text" in extra(field):
            sentences.append(f"Default: {extra(field)['default_text']}.")
            node.pop("default", None)
        node["description"] = " ".join(sentences)
        if is_list(field):
            _also_text(node)


def _also_text(node: dict[str, Any]) -> None:
    """Let a value be a text too: the limits of its other form move into an alternative."""
    if "anyOf" not in node:
        node["anyOf"] = [{name: node.pop(name) for name in list(node) if name not in {"description", "default"}}]
    node["anyOf"].append(_TEXT)


def _plain(tree: Any, above: tuple[str, ...]) -> Any:
    """A schema without null, which TOML does not have, and without what no editor uses."""
    if isinstance(tree, list):
        return [_plain(each, above) for each in tree if each != _NULL]
    if not isinstance(tree, Mapping):
        return tree
    of_free_names = above[-1:] in {("properties",), ("$defs",)}
    dropped = frozenset() if of_free_names else _FOR_OUR_OWN_PAGE | _OF_NO_USE_IN_TOML
    kept = {name: _plain(value, (*above, name)) for name, value in tree.items() if name not in dropped}
    if not of_free_names:
        if kept.get("default", 0) is None:
            del kept["default"]
        alternatives = kept.get("anyOf", [])
        if len(alternatives) == 1:
            del kept["anyOf"]
            kept = {**alternatives[0], **kept}
    return kept
