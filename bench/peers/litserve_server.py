"""(d) LitServe, a model server: one worker process for each core, batches made of what waits.

python litserve_server.py PORT
"""

from __future__ import annotations

import base64
import io
import os
import sys

import common
import litserve
import numpy as np
from PIL import Image


class Tagging(litserve.LitAPI):
    """Image bytes in, tags out."""

    def setup(self, _device: str) -> None:
        """Load the model, in each worker process."""
        from runtimes import open_runtime

        self._model = open_runtime()

    def decode_request(self, request: dict[str, str]) -> np.ndarray:
        """Pixels of one image."""
        with Image.open(io.BytesIO(base64.b64decode(request["image"]))) as image:
            return common.crop(image)

    def batch(self, inputs: list[np.ndarray]) -> np.ndarray:
        """One array of several images."""
        return np.stack(inputs)

    def predict(self, pictures: np.ndarray) -> np.ndarray:
        """Run the model."""
        return self._model.logits(pictures)

    def unbatch(self, output: np.ndarray) -> list[np.ndarray]:
        """Each image's logits."""
        return list(output)

    def encode_response(self, logits: np.ndarray) -> dict[str, object]:
        """Tags of one image."""
        return {"tags": common.tags(logits)}


def main() -> None:
    """Serve on the port given."""
    server = litserve.LitServer(
        Tagging(max_batch_size=8, batch_timeout=0.005),
        accelerator="cpu",
        workers_per_device=len(os.sched_getaffinity(0)),
        timeout=30,
    )
    server.run(host="127.0.0.1", port=int(sys.argv[1]), generate_client_file=False, log_level="warning")


if __name__ == "__main__":
    main()
