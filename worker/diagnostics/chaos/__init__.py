"""A chaos run: many events, while whatever can be killed is killed, and then a count of every one of them."""
