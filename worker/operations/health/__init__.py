"""Whether the service is alive, started and ready, its status as data, and the notifications to systemd."""
