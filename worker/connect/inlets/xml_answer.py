"""XML that a system answers with: read without a document type, and so without entities."""

from __future__ import annotations

from xml.etree import ElementTree

from worker.connect.inlets.listing import NoListing
from worker.connect.targets.client import TargetAnswer


class _NoDocumentType(ElementTree.TreeBuilder):
    """Refuses a document type, and with it every entity."""

    def doctype(self, name: str, *_: str | None) -> None:
        """Called for a declaration, before anything in it can be used."""
        raise ValueError(f"it declares the document type {name}")


def xml_of(answer: TargetAnswer, root: str) -> ElementTree.Element:
    """The root element, which has that name in any namespace. Raises NoListing for anything else."""
    try:
        found = ElementTree.fromstring(answer.body, ElementTree.XMLParser(target=_NoDocumentType()))  # noqa: S314
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise not_readable(answer, str(error)) from None
    if found.tag.rpartition("}")[2] != root:
        raise not_readable(answer, f"its root is {found.tag[:100]}")
    return found


def not_readable(answer: TargetAnswer, why: str) -> NoListing:
    """The error for an answer in which something is not as it should be."""
    return NoListing(f"{answer}: that can't be read as a listing: {why}", reason="listing_not_readable")
