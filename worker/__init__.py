"""Autotag: tags the images that a document management system announces over RabbitMQ."""

# The one place to change it: the build reads it here, and tests/unit/test_version.py names every file that repeats it.
__version__ = "0.1.0"
