"""What only the process that builds a built-in model imports: `python -m worker.models.builder`."""
