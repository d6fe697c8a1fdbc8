"""What the formats' own headers say that Pillow does not: depth, polarity, byte order, alpha, previews."""
