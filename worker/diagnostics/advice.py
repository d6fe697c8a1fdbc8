"""What to do about a failure, or about a service that is not ready: one sentence for each reason.

Messages describe what happened to one asset. Advice is what the person who runs the service should do next. This is the
only table of it: the status page and `/status.json` read it.
"""

from __future__ import annotations

from collections.abc import Mapping

COMMANDS = {"resume": "run `autotag resume`", "reset": "run `autotag reset`"}
"""How an operator resumes and resets from a shell. The page has its own mapping, with buttons."""

_PROXY = "Check the proxy of `sources.proxy` or `cloud.proxy`: the message has what it did. Nothing is lost."
_KEY = "Set the instance's `api_key` to a valid one; `autotag check --instance NAME` makes one cheap call with it."

ADVICE = {
    # Why the service is not ready. Other reasons have messages that need no advice.
    "by_operator": "To go on, {resume}.",
    "nothing_switched_on": "Switch a provider on, for one instance or in `defaults`, then run `autotag reload`.",
    "nobody_can_tag": "Events wait in their queue; none is lost. Mend the cause, then {reset}.",
    "broker_blocked": "Free memory or disk on the RabbitMQ machine.",
    "no_decoder": "Read the log: it says why decoders end. Events wait in their queue; none is lost.",
    "model_not_ready": "Read the log if it lasts: a model that never starts is disabled in the end. Events wait.",
    "left_to_others": "Other workers do the work. Mend what this one lacks, then {reset}.",
    "results_cannot_be_published": "Have the results queue consumed, or bind it again; `autotag check` looks at all.",
    "retries_cannot_be_published": "Look at the retry queues, their bindings and rights: run `autotag check`.",
    "dead_letters_cannot_be_published": "Look at the queue of dead letters and its binding: run `autotag check`.",
    "bytes_in_hand": "Send large images by path or url, or raise `amqp.maximum_bytes_in_hand`.",
    # Why an event or a provider failed.
    "image_killed_decoder": "Keep the file: it is an attack, or shows a fault in an image library. It is set aside.",
    "image_too_slow": "Keep the file: it may be an attack. Raise `decoder.maximum_cpu_s` if such are to be tagged.",
    "decoder_killed_from_outside": "Give the service more memory, or lower `decoder.children`. The image waits.",
    "image_in_hand_at_model_crashes": "Keep the file: it may crash the model. It is set aside.",
    "image_truncated": "Have the file uploaded again: its end is missing.",
    "image_corrupt": "Have the file uploaded again: it is damaged.",
    "image_empty": "Have the file uploaded again: it is empty.",
    "content_empty": "Have the file uploaded again: it is empty.",
    "image_too_large_pixels": "Raise `decoder.maximum_pixels` if images of this size are to be tagged.",
    "image_too_large_bytes": "Raise `sources.maximum_bytes` if files of this size are to be tagged.",
    "image_too_large_memory": "Raise `decoder.maximum_memory_bytes` if images of this size are to be tagged.",
    "event_too_large": "Send large images by path or url, or raise `sources.inline_maximum_bytes`.",
    "message_too_large": "Send large images by path or url, or raise `max_message_size` in RabbitMQ.",
    "image_format_refused": "Have the DMS send a JPEG of it, or no event. HEIC is read with the extra `heif`.",
    "image_unrecognised": "Have the DMS send events for images alone: the message names what this is.",
    "content_too_large": "Raise `sources.maximum_bytes` if files of this size are to be tagged.",
    "content_missing": "Check whether the DMS removes files before they are tagged, or names them wrongly.",
    "content_unreachable": "Check whether the host of the images is up and can be reached from here.",
    "source_circuit_open": "Check whether the host of the images is up; it is tried again after a while.",
    "proxy_unreachable": _PROXY,
    "proxy_garbled": _PROXY,
    "proxy_credentials_refused": "Set user and password in `sources.proxy` or `cloud.proxy`. Nothing is lost.",
    "proxy_refused": "Have the proxy let this service connect to the host that the message names. Nothing is lost.",
    "content_refused": "Let this service read the file: owner and mode of a path, `sources.credentials` for a URL.",
    "token_unreachable": "Check whether the token endpoint in `sources.credentials` is up and reachable from here.",
    "token_refused": "Set client id, secret and scope in `sources.credentials` to what the endpoint accepts.",
    "token_garbled": "Check `token_url` in `sources.credentials`: what answers there is no token endpoint.",
    "instance_not_allowed": "Add the publisher to `publishers` of the instance, if it may speak for it, and replay.",
    "path_no_roots": "Set `sources.path_roots` to the directories in which the DMS keeps its images.",
    "path_outside_roots": "Add the directory to `sources.path_roots`, if events may name files in it.",
    "url_host_not_allowed": "Add the host to `sources.url_allowed_hosts`, if events may name it.",
    "s3_bucket_unknown": "Add the bucket to a table in `sources.s3`, if its images are to be tagged, and replay.",
    "url_port_not_allowed": "Write the host with this port in `sources.url_allowed_hosts`, if events may name it.",
    "url_address_refused": "Set `sources.url_allow_private_addresses` if the images' host has a private address.",
    "google_key_refused": _KEY,
    "microsoft_key_refused": _KEY,
    "google_key_restricted": "Allow the key this API and this machine's address, in the key's project.",
    "api_not_enabled": "Enable the Cloud Vision API in the key's project.",
    "billing_disabled": "Enable billing for the key's project.",
    "google_project_refused": "Check the state of the key's project.",
    "google_refused": "Check the key and its project.",
    "microsoft_refused": "Check the network rules and permissions of the resource.",
    "api_retired": "Set the instance's `api_endpoint` to one without a path, or with /vision/v3.2.",
    "key_missing": "Set the instance's `api_key` for this service, or switch the service off.",
    "key_malformed": "Set the instance's `api_key` again; it was probably copied with a character too many.",
    "quota_exhausted": "Wait for the service's next period, or raise the quota with the service.",
    "quota_used_up": "Wait for the service's next period, or raise the quota with the service.",
    "budget_exhausted": "Raise the instance's `calls_per_month`, or wait for the next month.",
    "rate_limit": "Nothing: it comes back for its turn. If that takes too long, raise `calls_per_second`.",
    "calls_at_once": "Nothing yet: it comes back. The service is slow, or `cloud.maximum_calls_at_once` too small.",
    "budget_unusable": "See to the directory `state_dir`, or to the Redis server of `cloud.budget_url`.",
    "redis_not_installed": "Install the extra: `pip install 'autotag-worker[redis]'`.",
    "circuit_open": "Nothing yet: the service fails and is left alone for a while, then tried again.",
    "endpoint_missing": "Set the instance's `api_endpoint` for this service.",
    "endpoint_unknown": "Check the instance's endpoint for this service.",
    "endpoint_not_allowed": "Check the instance's endpoint for this service: it must be an https address.",
    "endpoint_not_public": "Set `cloud.allow_private_endpoints` if the service's endpoint is inside your network.",
    "model_disabled": "Find out why the model crashed, mend it, then {reset}.",
    "resources_exhausted": "Raise the limit that was hit (descriptors, memory, processes, disk). The event is kept.",
    "unroutable": "Bind a queue for this result: nobody takes it now. The event is kept and comes back.",
    "publish_refused": "Have the DMS take its results: their queue is full. Events are kept.",
    "provider_raised": "Read the log: the provider has a fault. It is asked again.",
    "internal_error": "Read the log and report it: this is a fault in Autotag. The event is tried again.",
    # Any other reason: by how the delivery ended, or for one of several providers.
    "dead_lettered": "Look at it with `autotag dead-letters show`, mend the cause, then replay it.",
    "retried": "Nothing yet: it is tried again after a delay.",
    "requeued": "Nothing yet: the event stays in its queue.",
    "provider": "Look at the message; the tags of the other providers went out.",
}
"""Advice by reason code. `{resume}` and `{reset}` stand for how the reader performs these actions."""


_READINESS = frozenset(
    {
        "by_operator",
        "nothing_switched_on",
        "nobody_can_tag",
        "no_decoder",
        "model_not_ready",
        "left_to_others",
        "broker_blocked",
        "results_cannot_be_published",
        "retries_cannot_be_published",
        "dead_letters_cannot_be_published",
        "bytes_in_hand",
    }
)
"""Reasons of the service as a whole; `internal_error` of a connection is not that of an event."""


def advice(reason: str, kind: str, actions: Mapping[str, str] = COMMANDS) -> str:
    """What to do about a failure. `kind` is how the delivery ended, or `provider` where one of several failed.

    `actions`: how the reader performs `resume` and `reset`.
    """
    found = ADVICE.get(reason) or ADVICE.get(kind) or ADVICE["dead_lettered"]
    return found.format_map(actions)


def readiness_advice(reason: str, actions: Mapping[str, str] = COMMANDS) -> str:
    """What to do about a service that is not ready for this reason; empty if its message needs none."""
    return ADVICE[reason].format_map(actions) if reason in _READINESS else ""
