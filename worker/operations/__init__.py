"""What operators watch and steer a running service with: health, metrics, logs, traces, recent history, control socket."""
