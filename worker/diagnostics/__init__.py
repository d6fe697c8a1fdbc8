"""Diagnostics that people run on a service: the preflight check, tuning, chaos runs; and the advice on each failure."""
