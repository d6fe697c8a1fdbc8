"""The quantised model in LiteRT, the same file that Autotag runs. An interpreter is not for two threads at once."""

from __future__ import annotations

import os
import threading

import common
import numpy as np


class LiteRT:
    """Logits of one picture; each thread has an interpreter of its own."""

    def __init__(self) -> None:
        self._of_thread = threading.local()

    def logits(self, pictures: np.ndarray) -> np.ndarray:
        """`[1, size, size, 3]` uint8 in, `[1, labels]` out."""
        interpreter = self._interpreter()
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pictures)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    def _interpreter(self):
        if not hasattr(self._of_thread, "interpreter"):
            from ai_edge_litert.interpreter import Interpreter

            threads = int(os.environ.get("BENCH_THREADS", "1"))
            self._of_thread.interpreter = Interpreter(model_path=common.MODEL, num_threads=threads)
            self._of_thread.interpreter.allocate_tensors()
        return self._of_thread.interpreter
