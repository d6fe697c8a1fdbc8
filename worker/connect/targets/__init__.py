"""Where tags are written to: a system that is described by requests, or objects in S3."""
