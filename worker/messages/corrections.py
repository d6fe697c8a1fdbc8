"""Corrections: what people made of the tags of one picture, as a line of a JSON-lines file.

Whatever connects to a document management system writes such lines; `autotag evaluate` and `autotag calibrate` read
them. A tag is a concept's id, WordNet's, or a name in any language; ids are better, as names may have been renamed.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class Correction(BaseModel):
    """What is known of one picture. At least one of the lists has to name a tag."""

    # A misspelt key would be a correction that silently counts for nothing.
    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    file: str = Field(min_length=1)
    """Where the picture is, relative to the folder that the reader is given."""
    asset_id: str | None = None
    """The picture's id there, for people."""
    labels: tuple[str, ...] = ()
    """All that is true of the picture; every other tag is false."""
    kept: tuple[str, ...] = ()
    """Tags of ours that people left."""
    added: tuple[str, ...] = ()
    """Tags that people put there."""
    removed: tuple[str, ...] = ()
    """Tags of ours that people took away."""

    def line(self) -> str:
        """One line of the file, without its line break."""
        return self.model_dump_json(exclude_defaults=True)
