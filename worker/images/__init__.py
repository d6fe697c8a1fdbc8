"""Images as values: their bytes behind a descriptor, their format, and what a decoder is asked to produce."""
