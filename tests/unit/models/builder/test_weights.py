"""The restricted reader of weight files: tensors are read exactly as written, and nothing else is read at all."""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import sys
from collections import OrderedDict
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from worker.errors import Misconfigured
from worker.models.builder.weights import MAGIC, PROTOCOL, read_state_dict


class FloatStorage:
    """Pickled as `torch.FloatStorage`."""


def _rebuild_tensor_v2(*_: object) -> None:
    """Pickled as `torch._utils._rebuild_tensor_v2`."""


class Storage:
    def __init__(self, key: str, values: np.ndarray[Any, Any], declared: int | None = None) -> None:
        self.key, self.values = key, values.astype("<f4")
        self.declared = len(values) if declared is None else declared


class Tensor:
    def __init__(self, storage: Storage, offset: Any, shape: Any, strides: Any) -> None:
        self.arguments: tuple[Any, ...] = (storage, offset, shape, strides, False, OrderedDict())

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_tensor_v2, self.arguments


class Pickler(pickle._Pickler):  # the one in Python: it accepts names that cannot be imported
    def persistent_id(self, value: object) -> object:
        if isinstance(value, Storage):
            return "storage", FloatStorage, value.key, "cpu", value.declared, None
        return None


@pytest.fixture(autouse=True)
def names_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    torch, utils = ModuleType("torch"), ModuleType("torch._utils")
    for module, item in ((torch, FloatStorage), (utils, _rebuild_tensor_v2)):
        setattr(module, item.__name__, item)
        monkeypatch.setattr(item, "__module__", module.__name__)
        monkeypatch.setitem(sys.modules, module.__name__, module)


def write(path: Path, state: object, storages: list[Storage], after: bytes = b"") -> str:
    """Write a file in torch's legacy format and return its SHA-256."""
    out = io.BytesIO()
    for value in (MAGIC, PROTOCOL, {"little_endian": True}, state, [storage.key for storage in storages]):
        Pickler(out, 2).dump(value)
    for storage in storages:
        out.write(struct.pack("<q", len(storage.values)) + storage.values.tobytes())
    path.write_bytes(out.getvalue() + after)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refused(path: Path, state: object, storages: list[Storage], after: bytes = b"") -> str:
    with pytest.raises(Misconfigured) as caught:
        read_state_dict(path, write(path, state, storages, after))
    assert caught.value.reason == "weights_refused"
    assert str(path) in str(caught.value)
    return str(caught.value)


NUMBERS = np.arange(24, dtype=np.float32)


def test_tensors_come_out_by_name(tmp_path: Path) -> None:
    one, two = Storage("1", NUMBERS), Storage("2", NUMBERS[:3] * 2)
    state = OrderedDict(matrix=Tensor(one, 0, (4, 6), (6, 1)), vector=Tensor(two, 0, (3,), (1,)))
    read = read_state_dict(tmp_path / "w.pth", write(tmp_path / "w.pth", state, [one, two]))
    assert list(read) == ["matrix", "vector"]
    np.testing.assert_array_equal(read["matrix"], NUMBERS.reshape(4, 6))
    np.testing.assert_array_equal(read["vector"], [0, 2, 4])


def test_strides_and_offset_are_honoured(tmp_path: Path) -> None:
    storage = Storage("1", NUMBERS)
    state = OrderedDict(kernel=Tensor(storage, 4, (2, 3, 2), (1, 4, 2)))
    read = read_state_dict(tmp_path / "w.pth", write(tmp_path / "w.pth", state, [storage]))["kernel"]
    assert read.flags.c_contiguous
    assert [[[read[a, b, c] for c in range(2)] for b in range(3)] for a in range(2)] == [
        [[4 + a + 4 * b + 2 * c for c in range(2)] for b in range(3)] for a in range(2)
    ]


class Command:
    """Unpickled the usual way, this runs a command."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.witness}",)


def test_a_pickle_that_calls_something_is_refused_and_calls_nothing(tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    message = refused(tmp_path / "w.pth", OrderedDict(weight=Command(witness)), [])
    assert "system" in message
    assert not witness.exists()
    pickle.loads(pickle.dumps(Command(witness)))  # noqa: S301 - proves that the pickle is dangerous
    assert witness.exists(), "the file was not as dangerous as this test intends"


@pytest.mark.parametrize("name", ["builtins\neval", "torch\nload", "collections\nUserDict", "os\nsystem"])
def test_no_other_name_is_admitted(tmp_path: Path, name: str) -> None:
    path = tmp_path / "w.pth"
    path.write_bytes(f"c{name}\n.".encode())
    with pytest.raises(Misconfigured, match=r"it asks for"):
        read_state_dict(path, hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize(
    ("offset", "shape", "strides"),
    [
        (0, (25,), (1,)),
        (1, (24,), (1,)),
        (0, (2, 2), (24, 1)),
        (-1, (2,), (1,)),
        (0, (-2,), (1,)),
        (0, (2,), (-1,)),
        (0, (2, 2), (1,)),
        (0, (0,), (1,)),
        (True, (2,), (1,)),
        (0, [2], (1,)),
        (0, (2.0,), (1,)),
        (0, (1 << 62, 1 << 62), (1, 1)),
    ],
)
def test_a_tensor_cannot_reach_outside_its_storage(tmp_path: Path, offset: Any, shape: Any, strides: Any) -> None:
    storage = Storage("1", NUMBERS)
    refused(tmp_path / "w.pth", OrderedDict(t=Tensor(storage, offset, shape, strides)), [storage])


def test_a_storage_that_has_another_length_than_declared_is_refused(tmp_path: Path) -> None:
    storage = Storage("1", NUMBERS, declared=23)
    assert "23 were declared" in refused(tmp_path / "w.pth", OrderedDict(t=Tensor(storage, 0, (2,), (1,))), [storage])


def test_bytes_after_the_end_are_refused(tmp_path: Path) -> None:
    storage = Storage("1", NUMBERS)
    state = OrderedDict(t=Tensor(storage, 0, (24,), (1,)))
    assert "3 bytes too many" in refused(tmp_path / "w.pth", state, [storage], after=b"abc")


def test_a_state_dict_of_something_else_is_refused(tmp_path: Path) -> None:
    refused(tmp_path / "w.pth", OrderedDict(t=1), [])
    refused(tmp_path / "w.pth", ["t"], [])


@pytest.mark.parametrize("cut_bytes", [1, 50, 97, 200])
def test_a_file_that_ends_early_is_refused(tmp_path: Path, cut_bytes: int) -> None:
    path, storage = tmp_path / "w.pth", Storage("1", NUMBERS)
    write(path, OrderedDict(t=Tensor(storage, 0, (24,), (1,))), [storage])
    path.write_bytes(path.read_bytes()[:-cut_bytes])
    with pytest.raises(Misconfigured, match="refused"):
        read_state_dict(path, hashlib.sha256(path.read_bytes()).hexdigest())


def test_nothing_is_interpreted_when_the_hash_is_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "w.pth"
    write(path, OrderedDict(), [])
    monkeypatch.setattr("worker.models.builder.weights._parse", lambda *_: pytest.fail("it was interpreted"))
    with pytest.raises(Misconfigured, match="expected " + "0" * 64):
        read_state_dict(path, "0" * 64)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"nowhere\.pth") as caught:
        read_state_dict(tmp_path / "nowhere.pth", "0" * 64)
    assert caught.value.reason == "weights_missing"
