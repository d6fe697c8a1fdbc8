"""`autotag connect`: what a document management system reports becomes events, and results are written to it as tags."""
