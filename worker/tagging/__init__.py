"""One image to its result, without a queue: gates, the tagger, merging, results, and the explanation of every label."""
