"""The status page as HTML: pure functions from a `View` of the service to text. No module here reads a request."""
