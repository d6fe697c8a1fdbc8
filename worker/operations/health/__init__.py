"""Whether the service is alive, started and ready; its status as data; the notifications to systemd."""
