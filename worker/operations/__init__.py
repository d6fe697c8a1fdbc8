"""What operators watch and steer a service with: health, metrics, logs, traces, recent history, control socket."""
