"""What Autotag says over HTTP: health for orchestrators, metrics for Prometheus, the status page for people."""
