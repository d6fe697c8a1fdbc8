"""The worked example of docs/providers.md: installed as by a user, then found and called."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "docs" / "examples" / "orientation_provider"

SCRIPT = """
import asyncio, json, sys
from worker.images.content import Content
from worker.errors import Misconfigured
from worker.messages import ImageFacts
from worker.providers.base import Image
from worker.providers.registry import make_enabled
from worker.settings import Settings

async def run():
    settings = Settings.model_validate(json.loads(sys.argv[1]))
    [provider] = make_enabled(settings)
    instance = settings.instance("acme")
    await provider.start()
    wrong = settings.instance("wrong")
    assert provider.enabled(wrong), "its results must report what is wrong with its table"
    facts = ImageFacts(format="PNG", width=300, height=100, sha256="0" * 64)
    with Content.from_bytes(b"", "test") as content:
        answer = await provider.tag(Image("a", "acme", content, facts, "image/png", None, None), instance)
        try:
            await provider.tag(Image("a", "wrong", content, facts, "image/png", None, None), wrong)
        except Misconfigured as error:
            assert "panorama" in str(error)
        else:
            raise AssertionError("a wrong table was accepted")
    await provider.close()
    print(json.dumps({"enabled": provider.enabled(instance), "model": answer.model,
                      "names": [each.name for each in answer.suggestions],
                      "heavy": sorted({"numpy", "PIL", "tensorflow"} & set(sys.modules))}))

asyncio.run(run())
"""


def test_the_example_can_be_installed_found_and_called(tmp_path: Path) -> None:
    source = shutil.copytree(EXAMPLE, tmp_path / "source")  # a build may leave files behind
    subprocess.run(
        [
            *(sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--no-index", "--no-build-isolation", "--no-cache-dir"),
            *("--target", str(tmp_path / "packages"), str(source)),
        ],
        check=True,
        timeout=120,
    )
    settings = {
        "defaults": {"providers": {"orientation": {"enabled": True, "panorama_ratio": 2.5}}},
        "instances": {"wrong": {"providers": {"orientation": {"enabled": True, "panorama": 2.5}}}},
    }
    process = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(settings)],
        check=True,
        capture_output=True,
        text=True,
        timeout=60,
        cwd=tmp_path,
        env={"PYTHONPATH": f"{tmp_path / 'packages'}:{ROOT}", "HOME": str(tmp_path)},
    )
    assert json.loads(process.stdout) == {
        "enabled": True,
        "model": "orientation/1",
        "names": ["landscape", "panorama"],
        "heavy": [],
    }
