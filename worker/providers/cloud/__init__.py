"""The shared base of providers that call a service over the network.

The layers of one call, outermost first: `provider` (cache, payload), `retries` (attempts, total time), `account_client`
(what one instance may do now: pause, rate, budget, circuit), `http_client` (one HTTP request).
"""
