"""The status page as HTML: plain functions from what is known to text. Nothing in here touches a request."""
