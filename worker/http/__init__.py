"""The HTTP interface: health checks for orchestrators, metrics for Prometheus, the status page for people."""
