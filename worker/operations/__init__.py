"""Operating a running service: health, metrics, logs, traces, recent history and the control socket."""
