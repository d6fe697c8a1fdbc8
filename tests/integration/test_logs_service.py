"""The log of a real service: a line for each event's end, and no secret and no image in any of its output."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from urllib.parse import urlsplit

from tests.support.fake_google import FakeGoogle
from tests.support.monitoring import fetch, http_url
from tests.support.polling import until
from tests.support.service import Dms, running_service

KEY = "AIzaMARKER-key-never-to-be-seen"
TOKEN = "MARKER-token-never-to-be-seen"
IN_THE_IMAGE = b"MARKER-pixels-never-to-be-seen"
SECRET_IN_URL = "MARKER-url-never-to-be-seen"
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


def test_every_event_ends_in_one_line_and_no_output_holds_a_secret(
    broker: str, photographs: dict[str, Path], tmp_path: Path
) -> None:
    prefix = f"test-secrets-{os.getpid()}"
    whole = photographs["coffee"].read_bytes() + IN_THE_IMAGE
    with (
        FakeGoogle("another-key") as google,  # which refuses ours, so that the error path is taken too
        running_service(
            broker,
            prefix,
            tmp_path,
            LOG__LEVEL="debug",
            HTTP__TOKEN=TOKEN,
            DEFAULTS__GOOGLE_CLOUD_VISION__ENABLED="true",
            DEFAULTS__GOOGLE_CLOUD_VISION__API_KEY=KEY,
            DEFAULTS__GOOGLE_CLOUD_VISION__ENDPOINT=google.url,
            CLOUD__ALLOW_PRIVATE_ENDPOINTS="true",
            CLOUD__ALLOW_PLAIN_HTTP_ENDPOINTS="true",
        ) as service,
    ):
        service.ready()
        dms = Dms(broker, prefix)
        # Given images in messages, whole and broken, and an event that can't be read
        events = [
            dms.publish({"base64": base64.b64encode(data).decode()}, asset_id=f"asset-{number}")
            for number, data in enumerate((whole, whole[:3000] + IN_THE_IMAGE, IN_THE_IMAGE))
        ]
        events.append(dms.publish({"url": f"https://user:{SECRET_IN_URL}@images.example/a.jpg"}, asset_id="asset-url"))
        dms.publish_body(
            json.dumps(
                {
                    "specversion": "1.0",
                    "id": "traced",
                    "source": "/dms",
                    "type": "dms.image.uploaded.v1",
                    "traceparent": f"00-{TRACE}-00f067aa0ba902b7-01",
                    "data": {"asset_id": "traced", "content": {"base64": base64.b64encode(whole).decode()}},
                }
            ).encode(),
            content_type="application/cloudevents+json",
        )
        events.append("traced")
        dms.publish_body(b"{" + IN_THE_IMAGE, content_type="application/json")
        results = dms.results_of(events)
        until(lambda: service.logged().count('"event ended"') == len(events) + 1, "each event's end was logged")
        dms.close()
        # When all output of the service is collected
        url, bearer = http_url(service), {"Authorization": f"Bearer {TOKEN}"}
        outputs = [fetch(f"{url}{path}", bearer).body for path in ("/metrics", "/readyz", "/livez", "/")]
        outputs += [service.autotag("status", "--json").stdout, service.autotag("status").stdout]
        assert service.stop() == 0
        outputs.append(service.logged())
    # Then there is one line for each event's end, with ids, stages and outcome
    ended = [line for line in map(json.loads, outputs[-1].splitlines()) if line["event"] == "event ended"]
    assert len(ended) == len(events) + 1
    by_event = {line["event_id"]: line for line in ended if "event_id" in line}
    for event in events:
        assert by_event[event]["status"] == results[event][-1].data["status"]
        assert by_event[event]["attempt"] == 1
        assert "publish" in by_event[event]["stages_s"]
    assert by_event[events[0]]["asset_id"] == "asset-0"
    assert by_event[events[1]]["reason"].startswith("image_")
    assert by_event["traced"]["trace_id"] == TRACE
    reasons = {report["name"]: report["reason"] for report in results["traced"][-1].data["providers"]}
    assert reasons["google_cloud_vision"] == "google_key_refused"
    # And none of it holds a secret or a part of an image
    everything = "\n".join([*outputs, *(message.body.decode() for found in results.values() for message in found)])
    password = urlsplit(broker).password
    hidden = [KEY, TOKEN, SECRET_IN_URL, IN_THE_IMAGE.decode(), base64.b64encode(IN_THE_IMAGE).decode()[4:-4]]
    for secret in [*hidden, *([password] if password else [])]:
        assert secret not in everything
