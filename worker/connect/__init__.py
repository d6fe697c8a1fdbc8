"""`autotag connect`: turns what other systems say about their images into events, and results into tags of theirs."""
