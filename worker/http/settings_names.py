"""Names of fields that the editor's form and what reads it share."""

INHERIT = "inherit "
"""Before a setting's key: the box that takes it out of the overlay."""
