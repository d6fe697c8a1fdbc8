"""The parent's side of child processes: their lifecycle, the relaunch rule, packets, and the pools that give them work."""
