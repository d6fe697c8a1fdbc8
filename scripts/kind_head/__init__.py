"""Trains `worker/models/packages/picture-kind`, which recognises what kind of picture an image is; see README.md."""
