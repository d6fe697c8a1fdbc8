"""The demonstration of `make demo`: a real broker, the real service, five photographs, and their tags.

It runs the same commands that an operator would, and prints each before it runs it. AUTOTAG_AMQP__URL names the
broker; `scripts/private_broker.py` sets it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket", "motorcycle_left")
"""Photographs that scikit-image ships inside its package."""

READY_WITHIN_S = 60.0


def main() -> int:
    """Run the demonstration. Returns 0 if every photograph was answered and the service ended cleanly."""
    with tempfile.TemporaryDirectory(prefix="autotag-demo-") as folder:
        files = write_photographs(Path(folder))
        environment = os.environ | {
            "AUTOTAG_DEFAULTS__TENSORFLOW__ENABLED": "true",
            "AUTOTAG_SOURCES__PATH_ROOTS": f'["{folder}"]',
            "AUTOTAG_AMQP__QUEUE_PREFIX": f"autotag-demo-{uuid.uuid4().hex[:8]}",
            "AUTOTAG_CONTROL_SOCKET": str(Path(folder) / "control.sock"),
            "AUTOTAG_HTTP__PORT": "0",
            "AUTOTAG_LOG__LEVEL": "warning",
        }
        if run(environment, "model", "build"):
            return 1
        print_command("run")
        service = subprocess.Popen(command("run"), env=environment)
        try:
            wait_until_ready(environment, service)
            publish = ("publish", "--by", "path", "--wait", "--timeout", "120")
            failed = run(environment, *publish, *map(str, files))
            chelsea = next(str(file) for file in files if file.stem == "chelsea")
            failed = run(environment, *publish, "--locale", "fr", chelsea) or failed
        finally:
            service.terminate()
            status = service.wait(timeout=60)
        print(f"\nThe service was asked to stop and ended with status {status}.")
        print(how_to_go_on())
        return failed or status


def how_to_go_on() -> str:
    """Where the program is, and what to do with it next."""
    program = Path(sys.executable).with_name("autotag")
    if program.is_relative_to(Path.cwd()):
        program = program.relative_to(Path.cwd())
    return (
        f"\nautotag is {program}; `. {program.parent}/activate` puts it on your PATH. Next, for example:\n"
        f"    {program} tag photo.jpg                   # a picture of yours; no broker needed\n"
        f"    {program} config init autotag.toml        # a first configuration, commented\n"
        f"    {program} --help"
    )


def wait_until_ready(environment: dict[str, str], service: subprocess.Popen[bytes]) -> None:
    """Return when the service is ready or has ended; in that case its own output holds the reason."""
    deadline_s = time.monotonic() + READY_WITHIN_S
    while service.poll() is None and time.monotonic() < deadline_s:
        if subprocess.run(command("status"), env=environment, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.2)


def write_photographs(folder: Path) -> list[Path]:
    """Write the photographs as JPEG files into `folder` and return their paths."""
    import skimage
    from PIL import Image

    files = []
    for name in PHOTOGRAPHS:
        (original,) = Path(skimage.__file__).parent.glob(f"data/{name}.*")
        files.append(folder / f"{name}.jpg")
        with Image.open(original) as photograph:
            photograph.convert("RGB").save(files[-1], quality=92)
    return files


def command(*words: str) -> list[str]:
    """An `autotag` command line for this interpreter."""
    return [sys.executable, "-m", "worker", *words]


def print_command(*words: str) -> None:
    """Print a command as a user would type it, with file names shortened."""
    shown = [Path(word).name if word.startswith("/") else word for word in words]
    print(f"\n$ autotag {shlex.join(shown)}", flush=True)


def run(environment: dict[str, str], *words: str) -> int:
    """Run one `autotag` command to its end and return its exit status."""
    print_command(*words)
    return subprocess.run(command(*words), env=environment, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
