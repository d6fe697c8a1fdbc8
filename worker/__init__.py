"""Autotag: tags the images that a document management system announces over RabbitMQ."""

__version__ = "0.1.0"
