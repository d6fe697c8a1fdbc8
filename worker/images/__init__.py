"""Images as values that cross module boundaries: their bytes, their format, and what a decoder is asked to make of them."""
