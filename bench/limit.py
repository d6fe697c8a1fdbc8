"""The limit: the same decoding and the same model in bare threads, with no broker, no children and no results.

    python bench/limit.py FOLDER… [--model NAME] [--seconds N] [--threads N]

The decoding is the project's own (`worker.children.rendering`) on what Pillow opens; the model is the package's file
in LiteRT. Each thread takes the next file, decodes it and runs the model, with one thread of inference. Each stage is
then measured by itself in the same way, so that the sum can be held against the whole; and in its place within the
whole, where the stages push each other out of the processor's caches.

`run.py` keeps one such process for each model and talks to it in JSON lines (`--serve`): a round costs no start.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).resolve()
STAGES = ("open", "decode", "infer", "confidences")

_ANSWER_WITHIN_S = 120.0

Work = Callable[[Path], object]


@dataclass(frozen=True, slots=True)
class Measured:
    """One run: images a second, and processor milliseconds an image; of the whole also `in_place_ms` by stage.

    Of images done one at a time `median_ms` is how long one took, and the pauses between them do not count.
    """

    images: int
    seconds: float
    images_per_s: float
    cpu_ms: float
    in_place_ms: dict[str, float] | None = None
    median_ms: float | None = None


@dataclass(frozen=True, slots=True)
class Order:
    """What to measure: `stage` is one of STAGES, or `all`.

    `one_at_a_time`: one image after the other on all cores, with a pause of `pause_s` before each, in which the
    processor may do what it does when images come seldom: fall asleep, and forget what was in its caches.
    """

    folder: str
    seconds: float
    stage: str = "all"
    one_at_a_time: bool = False
    pause_s: float = 0.0


class Bare:
    """Decoding and inference for one thread."""

    def __init__(self, model: str) -> None:
        import numpy as np
        from ai_edge_litert.interpreter import Interpreter
        from PIL import Image

        from worker.children import opening, rendering
        from worker.children.picture import of_pillow
        from worker.models.catalogue import find_package
        from worker.models.runtimes.confidences import Confidences
        from worker.settings import load_settings

        opening.prepare(50_000_000)
        package = find_package(model, load_settings().settings.cache_dir)
        self._numpy, self._image, self._pixels = np, Image, rendering.pixels
        self._picture = of_pillow
        self._recipe = package.manifest.recipe()
        self._confidences = Confidences(package)
        self._interpreter = Interpreter(model_path=str(package.model_path), num_threads=1)
        self._interpreter.allocate_tensors()
        self._input = self._interpreter.get_input_details()[0]["index"]
        self._output = self._interpreter.get_output_details()[0]["index"]
        self._shape = (1, self._recipe.size, self._recipe.size, 3)
        self._some_pixels = bytes(self._recipe.size**2 * 3)
        self._some_logits = np.zeros((1, 1000), np.float32)
        self.spent_s = dict.fromkeys(STAGES, 0.0)

    def work(self, stage: str) -> Work:
        """What one image is put through."""
        works: dict[str, Work] = {
            "all": self._all,
            "open": self._open,
            "open+decode": self._decode,
            "infer": lambda _: self._infer(self._some_pixels),
            "confidences": lambda _: self._confidences.of(self._some_logits),
        }
        return works[stage]

    def _all(self, file: Path) -> object:
        """One image all the way; what each stage takes of this thread's time is noted."""
        clock, spent_s = time.thread_time, self.spent_s
        began_s = clock()
        with file.open("rb") as opened, self._image.open(opened, formats=["JPEG", "PNG"]) as image:
            opened_s = clock()
            pixels = self._pixels(self._picture(image), [self._recipe])
        decoded_s = clock()
        logits = self._infer(pixels)
        inferred_s = clock()
        confidences = self._confidences.of(logits)
        ended_s = clock()
        moments = (began_s, opened_s, decoded_s, inferred_s, ended_s)
        for stage, (begin_s, end_s) in zip(STAGES, itertools.pairwise(moments), strict=True):
            spent_s[stage] += end_s - begin_s
        return confidences

    def _open(self, file: Path) -> tuple[int, int]:
        with file.open("rb") as opened, self._image.open(opened, formats=["JPEG", "PNG"]) as image:
            return image.size

    def _decode(self, file: Path) -> bytes:
        with file.open("rb") as opened, self._image.open(opened, formats=["JPEG", "PNG"]) as image:
            return self._pixels(self._picture(image), [self._recipe])

    def _infer(self, pixels: bytes) -> Any:
        numpy = self._numpy
        self._interpreter.set_tensor(self._input, numpy.frombuffer(pixels, numpy.uint8).reshape(self._shape))
        self._interpreter.invoke()
        return self._interpreter.get_tensor(self._output)


def run(works: Sequence[Work], files: Sequence[Path], seconds: float) -> Measured:
    """Give files to threads, one for each of `works`, until the time is over."""
    turn = itertools.cycle(files)
    lock = threading.Lock()
    done = [0] * len(works)
    began_s, began_cpu_s = time.perf_counter(), time.process_time()

    def thread(number: int) -> None:
        while time.perf_counter() - began_s < seconds:
            with lock:
                file = next(turn)
            works[number](file)
            done[number] += 1

    threads = [threading.Thread(target=thread, args=(number,)) for number in range(len(works))]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    took_s, used_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    return Measured(sum(done), took_s, sum(done) / took_s, used_s / sum(done) * 1000)


class Single:
    """Decoding and inference of one image on all cores, with the project's own way of spreading it over them."""

    def __init__(self, model: str, threads: int) -> None:
        import numpy as np
        from PIL import Image

        from worker.children import rendering
        from worker.children.picture import of_pillow
        from worker.models.catalogue import find_package
        from worker.models.runtimes import open_runtime
        from worker.settings import load_settings

        package = find_package(model, load_settings().settings.cache_dir)
        self._numpy, self._image, self._pixels = np, Image, rendering.pixels
        self._picture = of_pillow
        self._recipe = package.manifest.recipe()
        self._runtime = open_runtime(package, threads)
        self._shape = (1, self._recipe.size, self._recipe.size, 3)

    def work(self, file: Path) -> object:
        """One image all the way."""
        with file.open("rb") as opened, self._image.open(opened, formats=["JPEG", "PNG"]) as image:
            pixels = self._pixels(self._picture(image), [self._recipe])
        return self._runtime.score(self._numpy.frombuffer(pixels, self._numpy.uint8).reshape(self._shape))

    def measure(self, files: Sequence[Path], seconds: float, pause_s: float) -> Measured:
        """For about `seconds`, pauses included."""
        took_s: list[float] = []
        began_cpu_s, end_s = time.process_time(), time.perf_counter() + seconds
        for file in itertools.cycle(files):
            time.sleep(pause_s)
            began_s = time.perf_counter()
            self.work(file)
            took_s.append(time.perf_counter() - began_s)
            if time.perf_counter() > end_s:
                break
        images, spent_s = len(took_s), sum(took_s)
        cpu_ms = (time.process_time() - began_cpu_s) / images * 1000
        return Measured(images, spent_s, images / spent_s, cpu_ms, median_ms=statistics.median(took_s) * 1000)


class Loops:
    """The bare loops of one model: with one thread for each core, and one image at a time on all cores."""

    def __init__(self, model: str, threads: int) -> None:
        self._many = [Bare(model) for _ in range(threads)]
        self._single = Single(model, threads)

    def measure(self, order: Order) -> Measured:
        """Carry out an order; a short warm-up comes first. `decode` is what opening and decoding take beyond `open`."""
        files = sorted(Path(order.folder).iterdir())
        if order.one_at_a_time:
            self._single.work(files[0])
            return self._single.measure(files, order.seconds, order.pause_s)
        bares = self._many
        works = [bare.work("open+decode" if order.stage == "decode" else order.stage) for bare in bares]
        for work, bare in zip(works, bares, strict=True):
            work(files[0])
            bare.spent_s = dict.fromkeys(STAGES, 0.0)
        measured = run(works, files, order.seconds)
        if order.stage == "all":
            spent_s = {stage: sum(bare.spent_s[stage] for bare in bares) for stage in STAGES}
            return replace(measured, in_place_ms={at: s / measured.images * 1000 for at, s in spent_s.items()})
        if order.stage != "decode":
            return measured
        opening = run([bare.work("open") for bare in bares], files, order.seconds / 4)
        return replace(measured, cpu_ms=max(0.0, measured.cpu_ms - opening.cpu_ms))


class LimitProcess:
    """The bare loops of one model in a process of their own, which waits for orders."""

    def __init__(self, model: str, cores: Iterable[int] | None = None) -> None:
        chosen = sorted(cores or os.sched_getaffinity(0))
        self._process = subprocess.Popen(
            [sys.executable, str(HERE), "--serve", "--model", model, "--threads", str(len(chosen))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        os.sched_setaffinity(self._process.pid, chosen)
        self.pid = self._process.pid
        self._answer()  # it says that it is ready

    def measure(self, order: Order) -> Measured:
        """Have an order carried out."""
        assert self._process.stdin is not None  # noqa: S101 - a pipe was asked for
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        return Measured(**self._answer())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None  # noqa: S101 - a pipe was asked for
        killer = threading.Timer(_ANSWER_WITHIN_S, self._process.kill)
        killer.start()
        line = self._process.stdout.readline()
        killer.cancel()
        if not line:
            raise RuntimeError(f"the bare loop ended, or said nothing for {_ANSWER_WITHIN_S:g} s")
        answer: dict[str, Any] = json.loads(line)
        return answer


def _serve(model: str, threads: int) -> None:
    loops = Loops(model, threads)
    print(json.dumps({}), flush=True)
    for line in sys.stdin:
        print(json.dumps(asdict(loops.measure(Order(**json.loads(line))))), flush=True)


def main() -> None:
    """Parse the command line; see the module's docstring."""
    parser = argparse.ArgumentParser(description="Bare decoding and inference: the most this machine can do.")
    parser.add_argument("folders", nargs="*", metavar="FOLDER", help="directories of image files")
    parser.add_argument("--model", default="efficientnet-lite0")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--serve", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        _serve(arguments.model, arguments.threads)
        return
    loops = Loops(arguments.model, arguments.threads)
    for folder in arguments.folders:
        whole = loops.measure(Order(folder, arguments.seconds))
        single = loops.measure(Order(folder, arguments.seconds / 2, one_at_a_time=True))
        stages = {stage: loops.measure(Order(folder, arguments.seconds / 2, stage)).cpu_ms for stage in STAGES}
        explained = sum(stages.values()) / whole.cpu_ms
        parts = ", ".join(f"{stage} {cost:.2f}" for stage, cost in stages.items())
        print(
            f"{folder}: {whole.images_per_s:.1f} images/s, {whole.cpu_ms:.2f} CPU-ms each ({parts}: {explained:.0%}); "
            f"one at a time {single.median_ms:.2f} ms"
        )


if __name__ == "__main__":
    main()
