"""What people run to examine a service: the preflight check, tuning, chaos runs; and the advice on each failure."""
