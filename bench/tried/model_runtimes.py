"""`python runtimes.py TFLITE SAVED_MODEL PIXELS SIZE SECONDS`: runtimes for the quantised model, on the same pixels.

`PIXELS` is a file of uint8 RGB squares one after another. OpenVINO reads the LiteRT file itself; for ONNX Runtime the
float SavedModel is converted and quantised again, with the first squares to calibrate. One thread each. Prints a JSON
object a line; `same` is how often the first label is LiteRT's.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rounds import measure

CALIBRATE_WITH = 100
COMPARE_ON = 50
BATCHES = (1, 8)

Runtime = Callable[[np.ndarray], np.ndarray]


def litert(file: Path) -> Runtime:
    """What is in use."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file), num_threads=1)
    interpreter.allocate_tensors()
    given, answer = interpreter.get_input_details()[0]["index"], interpreter.get_output_details()[0]["index"]
    state = {"batch": 1}

    def run(pixels: np.ndarray) -> np.ndarray:
        if state["batch"] != len(pixels):
            state["batch"] = len(pixels)
            interpreter.resize_tensor_input(given, pixels.shape)
            interpreter.allocate_tensors()
        interpreter.set_tensor(given, pixels)
        interpreter.invoke()
        return np.asarray(interpreter.get_tensor(answer))

    return run


def openvino(file: Path, size: int) -> Runtime:
    """The same file in OpenVINO."""
    import openvino as ov

    core = ov.Core()
    model = core.read_model(str(file))
    model.reshape([-1, size, size, 3])
    options = {"INFERENCE_NUM_THREADS": 1, "PERFORMANCE_HINT": "LATENCY", "NUM_STREAMS": 1}
    request = core.compile_model(model, "CPU", options).create_infer_request()

    def run(pixels: np.ndarray) -> np.ndarray:
        request.infer([pixels])
        return np.array(request.get_output_tensor(0).data)

    return run


def onnx_files(saved_model: Path, pixels: np.ndarray, folder: Path) -> dict[str, Path]:
    """The float model as ONNX, and the same quantised statically."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static
    from onnxruntime.quantization.shape_inference import quant_pre_process

    floating, prepared, quantised = folder / "float.onnx", folder / "prepared.onnx", folder / "int8.onnx"
    command = [sys.executable, "-m", "tf2onnx.convert", "--saved-model", str(saved_model), "--output", str(floating)]
    done = subprocess.run([*command, "--opset", "17"], capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise RuntimeError(f"tf2onnx: {done.stderr.strip()[-200:]}")
    quant_pre_process(str(floating), str(prepared))

    class Calibration(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._left: Iterator[dict[str, np.ndarray]] = iter(
                [{_input_name(floating): normalised(each[None])} for each in pixels[:CALIBRATE_WITH]]
            )

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._left, None)

    quantize_static(
        str(prepared),
        str(quantised),
        Calibration(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        activation_type=QuantType.QUInt8,
        weight_type=QuantType.QInt8,
    )
    return {"float": floating, "int8": quantised}


def onnx(file: Path) -> Runtime:
    """An ONNX file in ONNX Runtime."""
    session, name = _session(file), _input_name(file)

    def run(pixels: np.ndarray) -> np.ndarray:
        answer: np.ndarray = session.run(None, {name: normalised(pixels)})[0]
        return answer

    return run


def normalised(pixels: np.ndarray) -> np.ndarray:
    """Pixels as the float model takes them."""
    return (pixels.astype(np.float32) - 127.0) / 128.0


def _session(file: Path) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _input_name(file: Path) -> str:
    return str(_session(file).get_inputs()[0].name)


def candidates(tflite: Path, saved_model: Path, pixels: np.ndarray, size: int, folder: Path) -> dict[str, Runtime]:
    """Those that can be had here, by name; the first is the reference."""
    found: dict[str, Runtime] = {"LiteRT int8 (in use)": litert(tflite)}
    made: dict[str, Path] = {}

    def onnx_of(kind: str) -> Runtime:
        if not made:
            made.update(onnx_files(saved_model, pixels, folder))
        return onnx(made[kind])

    others: dict[str, Callable[[], Runtime]] = {
        "OpenVINO int8": lambda: openvino(tflite, size),
        "ONNX Runtime int8": lambda: onnx_of("int8"),
        "ONNX Runtime float": lambda: onnx_of("float"),
    }
    for name, make in others.items():
        try:
            found[name] = make()
            found[name](pixels[:1])
        except Exception as error:  # noqa: BLE001 - a library that cannot do it is a finding, not the end
            found.pop(name, None)
            why = f"{type(error).__name__}: {error}"[:200]
            print(json.dumps({"what": "runtime", "on": "-", "who": name, "failed": why}), flush=True)
    return found


def main() -> None:
    """Measure with one picture at a time, and with eight."""
    tflite, saved_model, file = (Path(argument) for argument in sys.argv[1:4])
    size, seconds = int(sys.argv[4]), float(sys.argv[5])
    pixels = np.frombuffer(file.read_bytes(), np.uint8).reshape(-1, size, size, 3)
    with tempfile.TemporaryDirectory() as folder:
        runtimes = candidates(tflite, saved_model, pixels, size, Path(folder))
        first = {
            name: [int(run(each[None])[0].argmax()) for each in pixels[-COMPARE_ON:]] for name, run in runtimes.items()
        }
        reference = next(iter(first.values()))
        for batch in BATCHES:
            batches = [pixels[start : start + batch] for start in range(0, len(pixels) - batch + 1, batch)]
            for name, found in measure(runtimes, batches, seconds).items():
                line: dict[str, Any] = {"what": "runtime", "on": f"batch of {batch}", "who": name, **found}
                for key in ("wall_ms", "cpu_ms"):
                    if key in line:
                        line[key] /= batch
                line["same"] = sum(a == b for a, b in zip(reference, first[name], strict=True)) / len(reference)
                print(json.dumps(line), flush=True)


if __name__ == "__main__":
    main()
