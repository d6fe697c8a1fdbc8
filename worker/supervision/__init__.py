"""The parent's side of child processes: lifecycle, relaunch rule, packets, and the pools that give them jobs."""
