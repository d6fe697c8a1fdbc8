"""What a target's answer means for a write: one decision for each status."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from worker.connect.targets.base import AssetGone, Rejected, TargetBusy, TargetRefused
from worker.connect.targets.client import TargetAnswer
from worker.settings import TargetSettings
from worker.sources.retry_after import retry_after_s

_REFUSALS: Final = {401: "unauthorized", 403: "forbidden"}
_HTML: Final = ("text/html", "application/xhtml+xml")


def raise_unless_done(
    answer: TargetAnswer, settings: TargetSettings, *, done_on: Collection[int] = (), refuses_html: bool = True
) -> None:
    """Return for an answer that means done. Raises AssetGone, TargetBusy, TargetRefused or Rejected otherwise."""
    status = answer.status
    if status in _REFUSALS:
        raise TargetRefused(f"{answer}; are the credential and its rights as they should be?", reason=_REFUSALS[status])
    if status in done_on:
        return
    if 200 <= status < 300:
        # Some servers call every answer HTML, also one without a body: that is no page.
        if refuses_html and answer.content_type in _HTML and answer.body.strip():
            raise TargetRefused(
                f"{answer.request} was answered with a web page, perhaps to sign in: {answer.quoted}", reason="web_page"
            )
        return
    if 300 <= status < 400:
        raise TargetRefused(
            f"{answer.request} was redirected ({status}), perhaps to sign in; redirects are not followed: is `url` the "
            "address that the system itself uses?",
            reason="redirected",
        )
    if status in settings.later_on or status >= 500:
        after_s = retry_after_s(answer.headers.get("retry-after"))
        raise TargetBusy(str(answer), reason=f"status_{status}", after_s=after_s, is_answer=True)
    if status in settings.gone_on:
        raise AssetGone(str(answer))
    raise Rejected(str(answer))
