"""Ways in: how the connector learns of images."""
