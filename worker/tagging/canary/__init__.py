"""The canary: a picture of our own whose tags are known, and what a model that works says of it. Pure."""
