"""Image taggers: the local model, the cloud services, and third-party providers."""
