"""Images and settings for tests of the cloud providers."""

from __future__ import annotations

import hashlib
import io
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

from PIL import Image as Pillow

from worker.images.content import Content
from worker.images.requests import JpegLimits
from worker.messages import ImageFacts
from worker.providers.base import Image, Provider
from worker.providers.registry import ProviderContext
from worker.settings import InstanceSettings, Settings

KEY_MARK = "AIzaMARKER"
"""The beginning of every key; tests search for it in all output."""

MARKER_KEY = f"{KEY_MARK}-0123456789-never-to-be-seen"
"""The key of tests that need only one."""

_P = TypeVar("_P", bound=Provider)


def picture(seed: int = 0, size: tuple[int, int] = (64, 64), form: str = "PNG", **save: Any) -> bytes:
    """A small image file; another seed gives another image."""
    out = io.BytesIO()
    colour = (seed % 256, seed // 256 % 256, 128)
    Pillow.new("RGB", size, colour).save(out, form, **save)
    return out.getvalue()


class _ContentOfNobody(Content):
    """A content that no block closes: it is closed when nobody holds it any more."""

    def __del__(self) -> None:
        self.close()


def image_of(
    data: bytes,
    *,
    asset_id: str = "asset-1",
    instance: str = "acme",
    shrink: Callable[[JpegLimits], Awaitable[bytes]] | None = None,
    facts: ImageFacts | None = None,
) -> Image:
    """An image as the tagger passes it to providers."""
    if facts is None:
        with Pillow.open(io.BytesIO(data)) as opened:
            form, width, height = str(opened.format), opened.width, opened.height
        facts = ImageFacts(format=form, width=width, height=height, sha256=hashlib.sha256(data).hexdigest())
    content = Content.from_bytes(data, "test")
    return Image(
        asset_id=asset_id,
        instance=instance,
        content=_ContentOfNobody(content.fd, content.size_bytes, content.origin, content.head),
        facts=facts,
        mime_type=f"image/{facts.format.lower()}",
        pixels_fd=None,
        shrink_content=refuse_to_shrink if shrink is None else lambda _content, limits: shrink(limits),
    )


async def refuse_to_shrink(content: Content, limits: JpegLimits) -> bytes:
    raise AssertionError(f"unexpected request for a smaller JPEG of {content.origin} within {limits}")


async def small_jpeg(_limits: JpegLimits) -> bytes:
    """What `image_of` may shrink an image to."""
    return picture(form="JPEG")


def key(name: str) -> str:
    """A key in the format of Google's."""
    return f"{KEY_MARK}-{name}-0123456789"


def google_table(url: str, api_key: str | None = None, **more: Any) -> dict[str, Any]:
    """Settings that enable Google Cloud Vision at `url`."""
    return {"enabled": True, "endpoint": url, **({"api_key": api_key} if api_key is not None else {}), **more}


def microsoft_table(url: str | None, api_key: str | None = None, **more: Any) -> dict[str, Any]:
    """Settings that enable Microsoft's vision service at `url`."""
    return {"enabled": True, "api_endpoint": url, **({"api_key": api_key} if api_key is not None else {}), **more}


def google(url: str, api_key: str = MARKER_KEY, **more: Any) -> InstanceSettings:
    """An instance with Google Cloud Vision at `url`."""
    return InstanceSettings.model_validate({"google_cloud_vision": google_table(url, api_key, **more)})


def microsoft(url: str | None, api_key: str = MARKER_KEY, **more: Any) -> InstanceSettings:
    """An instance with Microsoft's service at `url`."""
    return InstanceSettings.model_validate({"microsoft_vision": microsoft_table(url, api_key, **more)})


QUICK: dict[str, Any] = {
    # Settings of the table `cloud` for a fake on this machine, with short waits.
    "allow_private_endpoints": True,
    "allow_plain_http_endpoints": True,
    "retry_minimum_wait_s": 0.01,
    "retry_maximum_wait_s": 0.05,
}


@asynccontextmanager
async def started(kind: Callable[[ProviderContext], _P], directory: Path, **cloud: Any) -> AsyncIterator[_P]:
    """A started provider. `cloud` are settings of that table, in addition to those of `QUICK`."""
    settings = Settings.model_validate(
        {"cache_dir": directory / "cache", "state_dir": directory / "state", "cloud": {**QUICK, **cloud}}
    )
    provider = kind(ProviderContext(settings))
    await provider.start()
    try:
        yield provider
    finally:
        await provider.close()
