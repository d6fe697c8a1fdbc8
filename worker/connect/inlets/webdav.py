"""Listing of the images in a folder of Nextcloud, by when they were uploaded (WebDAV SEARCH, RFC 5323).

Times are sent as seconds: a date in a form that Nextcloud does not expect is the year 1970 to it, without a word. Files
that it has found by a scan of its storage have no such time, and are not listed.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import unquote
from xml.etree import ElementTree

from worker.connect.inlets.listing import TIMEOUT_S, RequestListing, check
from worker.connect.inlets.xml_answer import not_readable, xml_of
from worker.settings.cursors import Cursor, moment_text

_DAV: Final = "{DAV:}"
_OWNCLOUD: Final = "{http://owncloud.org/ns}"
_NEXTCLOUD: Final = "{http://nextcloud.org/ns}"
_PAGES: Final = "{https://github.com/icewind1991/SearchDAV/ns}"
_UPLOADED: Final = f"{_NEXTCLOUD}upload_time"
_PROPERTIES: Final = {
    "id": f"{_OWNCLOUD}fileid",
    "etag": f"{_DAV}getetag",
    "mime_type": f"{_DAV}getcontenttype",
    "size": f"{_DAV}getcontentlength",
    "modified": f"{_DAV}getlastmodified",
    "uploaded": _UPLOADED,
}


class FolderListing(RequestListing):
    """Items have `path` (the parts below the DAV root) and texts: `id`, `etag`, `mime_type`, `size`, `uploaded` …"""

    async def _fetch(self, position: str, number: int) -> list[dict[str, Any]]:
        """See `RequestListing`."""
        size = self._settings.page_size
        answer = await self._client.request(
            "SEARCH",
            self._address.of({}),
            headers={"Content-Type": "text/xml; charset=utf-8"},
            body=_query(self._settings.prefix, int(Cursor.of(position).value), (number - 1) * size, size),
            timeout_s=TIMEOUT_S,
        )
        check(answer)
        try:
            return [_item(each, self._root) for each in xml_of(answer, "multistatus").iter(f"{_DAV}response")]
        except ValueError as error:
            raise not_readable(answer, str(error)) from None

    @property
    def _root(self) -> list[str]:
        """The parts of the path of the DAV root, as the system itself has them in its answers."""
        path = self._address.of({}).partition("://")[2].partition("/")[2]
        return [unquote(each) for each in path.split("/") if each]


def _query(folder: str, since_s: int, first: int, size: int) -> bytes:
    request = ElementTree.Element(f"{_DAV}searchrequest")
    search = ElementTree.SubElement(request, f"{_DAV}basicsearch")
    selected = _below(search, "select", "prop")
    for name in _PROPERTIES.values():
        ElementTree.SubElement(selected, name)
    scope = _below(search, "from", "scope")
    _below(scope, "href").text = folder
    _below(scope, "depth").text = "infinity"
    both = _below(search, "where", "and")
    for operator, name, literal in (("like", f"{_DAV}getcontenttype", "image/%"), ("gte", _UPLOADED, str(since_s))):
        comparison = _below(both, operator)
        ElementTree.SubElement(_below(comparison, "prop"), name)
        _below(comparison, "literal").text = literal
    order = _below(search, "orderby", "order")
    ElementTree.SubElement(_below(order, "prop"), _UPLOADED)
    _below(order, "ascending")
    limit = _below(search, "limit")
    _below(limit, "nresults").text = str(size)
    ElementTree.SubElement(limit, f"{_PAGES}firstresult").text = str(first)
    written: bytes = ElementTree.tostring(request, encoding="utf-8", xml_declaration=True)
    return written


def _below(element: ElementTree.Element, *names: str) -> ElementTree.Element:
    """A new element inside, inside others of these names."""
    for name in names:
        element = ElementTree.SubElement(element, f"{_DAV}{name}")
    return element


def _item(response: ElementTree.Element, root: list[str]) -> dict[str, Any]:
    """One resource. Raises ValueError for one that is not below the root."""
    href = response.findtext(f"{_DAV}href") or ""
    parts = [unquote(each, errors="strict") for each in href.split("/") if each]
    if parts[: len(root)] != root:
        raise ValueError(f"{href[:200]!r} is not below /{'/'.join(root)}")
    found = {name: response.findtext(f".//{_DAV}prop/{tag}") for name, tag in _PROPERTIES.items()}
    item: dict[str, Any] = {name: text for name, text in found.items() if text}
    if "uploaded" in item:
        item["uploaded"] = moment_text(int(item["uploaded"]))
    if "etag" in item:
        item["etag"] = item["etag"].strip('"')
    return item | {"path": parts[len(root) :]}
