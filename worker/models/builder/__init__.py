"""The builder process of the built-in models: `python -m worker.models.builder`. No other process imports this."""
