"""`python keras_model.py MODEL FILE` writes one of Autotag's float models as a `.keras` file, for those who use Keras.

Run by Autotag's own Python: the weights and the architecture are its own, so that everybody serves the same model.
"""

from __future__ import annotations

import sys

from worker.models.builder.efficientnet_lite import VARIANTS, build_keras
from worker.models.builder.weights import read_state_dict
from worker.models.catalogue import BUILT_IN


def main() -> None:
    """Build and save."""
    model = BUILT_IN[sys.argv[1]]
    state = read_state_dict(model.weights_path(), model.weights_sha256)
    build_keras(VARIANTS[model.architecture], state).save(sys.argv[2])


if __name__ == "__main__":
    main()
