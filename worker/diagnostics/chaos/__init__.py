"""The chaos run: kills services, their children, connections and the broker under load, then counts every event."""
