"""The overlay: a layer of settings that is written by commands and by the status page, never by a deployment.

It lies over the TOML file and below the secrets and the environment (docs/decisions/0018-the-overlay.md).
"""
