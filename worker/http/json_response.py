"""Answers in JSON. People read them too, with curl: what they cannot see is escaped, as in all JSON that is printed."""

from __future__ import annotations

import json

from starlette.responses import Response

from worker.operations.printable import printable_json


class JsonResponse(Response):
    """A JSON value as the body."""

    media_type = "application/json"

    def render(self, content: object) -> bytes:
        """The value as JSON in UTF-8."""
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return printable_json(text).encode()
