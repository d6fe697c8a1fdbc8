"""docs/examples/publishers: each one, run as written, gets its tags. A language that is not here is skipped by name."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pika
import pytest
from rabbitmq_node import PrivateBroker

from tests.support.polling import until
from tests.support.service import Dms, RunningService, running_service

EXAMPLES = Path(__file__).parents[2] / "docs/examples/publishers"
JARS = [Path("/usr/share/java") / f"{name}.jar" for name in (
    "amqp-client", "jackson-databind", "jackson-core", "jackson-annotations", "slf4j-api", "slf4j-nop"
)]  # fmt: skip
NAME_WITH_EVERYTHING = 'a "cat" & übung\\.jpg'
"""A file name that a publisher who glues JSON together by hand gets wrong."""


@dataclass(frozen=True)
class Language:
    """How an example is run, what has to be here for it, and where that comes from."""

    command: Sequence[str]
    needs: Sequence[str]
    """Programs, or files where there is a slash in the name."""
    comes_from: str = "run scripts/install_tools.sh as root"

    def missing(self) -> list[str]:
        return [each for each in self.needs if not (Path(each).exists() if "/" in each else shutil.which(each))]


LANGUAGES = {
    "Python": Language((sys.executable, "publish.py"), ()),
    "Java": Language(
        ("java", "-cp", ":".join(map(str, JARS)), "Publish.java"),
        ("javac", *map(str, JARS[:4])),
        "install a JDK, then run scripts/install_tools.sh as root",
    ),
    "JavaScript": Language(("node", "publish.mjs"), ("node", "npm"), "install Node.js with npm"),
    "PHP": Language(("php", "publish.php"), ("php", "/usr/share/php/PhpAmqpLib/autoload.php")),
    "shell": Language(("sh", "publish.sh"), ("curl", "jq")),
}


@pytest.fixture(scope="module")
def node() -> Iterator[PrivateBroker]:
    """A RabbitMQ with the management plugin, for names as the examples have them."""
    with PrivateBroker(management=True) as broker:
        yield broker


@pytest.fixture(scope="module")
def photographs_folder(tmp_path_factory: pytest.TempPathFactory, photographs: Mapping[str, Path]) -> Path:
    folder = tmp_path_factory.mktemp("dms")
    shutil.copy(photographs["chelsea"], folder / NAME_WITH_EVERYTHING)
    return folder


@pytest.fixture(scope="module")
def service(
    node: PrivateBroker, photographs_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RunningService]:
    roots = json.dumps([str(photographs_folder)])
    folder = tmp_path_factory.mktemp("run")
    with running_service(node.url, "autotag", folder, SOURCES__PATH_ROOTS=roots) as running:
        yield running.ready(within_s=120)
        assert running.stop() == 0


@pytest.fixture
def dms(node: PrivateBroker, service: RunningService) -> Iterator[Dms]:
    """Looks into the queues of the running service."""
    dms = Dms(node.url, "autotag")
    yield dms
    dms.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The examples where they can be run, with what npm installs beside them."""
    folder = tmp_path_factory.mktemp("examples") / "publishers"
    shutil.copytree(EXAMPLES, folder)
    return folder


@pytest.fixture(scope="module")
def with_npm(folder: Path) -> Callable[[], None]:
    """Installs amqplib, or skips: whether a package registry can be reached is no property of the example."""

    def install() -> None:
        command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "amqplib@2"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        if done.returncode:
            pytest.skip(f"npm cannot install amqplib: {(done.stderr or done.stdout).strip()[-300:]}")

    return install


def run(language: Language, folder: Path, node: PrivateBroker, path: str) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ,
        "AMQP_URL": node.url,
        "RABBITMQ_API": f"{node.management_url}/api",
        "LC_ALL": "C.UTF-8",
    }
    return subprocess.run(
        [*language.command, path],
        cwd=folder, env=environment, capture_output=True, text=True, timeout=150, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("name", LANGUAGES)
def test_an_example_gets_the_tags_of_its_image(
    name: str, node: PrivateBroker, dms: Dms, folder: Path, with_npm: Callable[[], None]
) -> None:
    language = LANGUAGES[name]
    if missing := language.missing():
        pytest.skip(f"the example in {name} is not run, without {', '.join(missing)}: {language.comes_from}")
    if name == "JavaScript":
        with_npm()
    dms.publish({"path": "/etc/passwd"}, asset_id="another's")  # a result that is not its own comes first
    until(lambda: dms.depth("results") == 1, "the other result is there", within_s=60)

    done = run(language, folder, node, NAME_WITH_EVERYTHING)

    assert done.returncode == 0, done.stderr
    other, own = done.stdout.splitlines()
    assert other.startswith("another's failed")
    assert own.startswith(f"{NAME_WITH_EVERYTHING} tagged animal, cat"), own
    until(lambda: dms.depth("results") == 0, "what was dealt with is acknowledged")


@pytest.mark.parametrize("name", LANGUAGES)
def test_an_example_notices_that_nobody_takes_its_event(
    name: str, node: PrivateBroker, service: RunningService, folder: Path, with_npm: Callable[[], None]
) -> None:
    language = LANGUAGES[name]
    if language.missing():
        pytest.skip(f"{name} is not here")
    if name == "JavaScript":
        with_npm()
    exchange, key = "autotag.images", "live"
    with pika.BlockingConnection(pika.URLParameters(node.url)) as connection:
        channel = connection.channel()
        channel.queue_unbind("autotag.images.live", exchange, key)
        try:
            done = run(language, folder, node, NAME_WITH_EVERYTHING)
        finally:
            channel.queue_bind("autotag.images.live", exchange, key)
    assert done.returncode != 0
    assert done.stderr
    assert done.stdout == ""
