"""The answer to a PROPFIND for ownCloud's tags: their ids and names.

Read with expat, without a document type: what declares one is refused, and with it every entity.
"""

from __future__ import annotations

from typing import Final
from xml.parsers import expat

REQUEST: Final = (
    b'<?xml version="1.0"?>'
    b'<d:propfind xmlns:d="DAV:" xmlns:oc="http://owncloud.org/ns">'
    b"<d:prop><oc:id/><oc:display-name/></d:prop></d:propfind>"
)
_NAMES: Final = ("id", "display-name")
_SEPARATOR: Final = " "


def tags_in(body: bytes) -> list[dict[str, str]]:
    """`id` and `display-name` of each resource that has both. Raises ValueError for what is not XML."""
    found: list[dict[str, str]] = []
    current: dict[str, str] = {}
    reading: list[str] = []

    def on_start(name: str, _attributes: object) -> None:
        local = name.rpartition(_SEPARATOR)[2]
        if local == "response":
            current.clear()
        reading.append(local)

    def on_end(name: str) -> None:
        reading.pop()
        if name.rpartition(_SEPARATOR)[2] == "response" and all(current.get(each) for each in _NAMES):
            found.append(dict(current))

    def on_text(text: str) -> None:
        if reading and reading[-1] in _NAMES:
            current[reading[-1]] = current.get(reading[-1], "") + text

    def on_doctype(*_: object) -> None:
        raise ValueError("it declares a document type")

    parser = expat.ParserCreate(namespace_separator=_SEPARATOR)
    parser.StartElementHandler, parser.EndElementHandler = on_start, on_end
    parser.CharacterDataHandler, parser.StartDoctypeDeclHandler = on_text, on_doctype
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise ValueError(f"it is not XML: {error}") from None
    return found
