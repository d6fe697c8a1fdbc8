"""What people start to find out how a service does: the preflight check, the tuning, chaos runs; and advice on failures."""
