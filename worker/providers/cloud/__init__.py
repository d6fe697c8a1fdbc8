"""What providers that ask a service over the network share.

An image's way, outermost first: `provider` (cache, deadline), `retries` (tenacity), `client` (what one instance may do
now: pause, rate, budget, circuit), `http` (one HTTP call).
"""
