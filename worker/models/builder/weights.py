"""Reads the EfficientNet-Lite weight files without torch, and without trusting them.

A `.pth` file of the legacy format is a sequence of five pickles (magic number, protocol version, facts about the
machine that wrote it, the state dict, the storage keys) followed, for each storage, by an int64 count and that number
of little-endian values. Unpickling normally lets a file call any function; this reader admits tensors, their two types
of storage and `OrderedDict`, and nothing else, written with the opcodes that torch writes them with. The SHA-256 is
compared with the pinned one before any byte is interpreted.
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
import pickletools
import struct
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from worker.errors import Misconfigured

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
MAX_FILE_BYTES = 256 << 20

_Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True)
class _StorageType:
    """Stands for `torch.FloatStorage` or `torch.LongStorage`."""

    dtype: str


@dataclass(frozen=True, slots=True)
class _Storage:
    """A storage the state dict refers to; its values come later in the file."""

    key: str
    dtype: str
    count: int


@dataclass(frozen=True, slots=True)
class _Tensor:
    """A view into a storage, in elements."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _RebuildTensor:
    """Stands for `torch._utils._rebuild_tensor_v2`: records its arguments once they are checked to be plain numbers."""

    __slots__ = ()

    def __call__(self, storage: object, offset: object, shape: object, strides: object, *_: object) -> _Tensor:
        if not isinstance(storage, _Storage) or not _is_count(offset):
            raise pickle.UnpicklingError("a tensor without a storage")
        if not _are_counts(shape) or not _are_counts(strides) or len(shape) != len(strides):  # type: ignore[arg-type]
            raise pickle.UnpicklingError("a tensor whose shape or strides are not counts")
        return _Tensor(storage, offset, shape, strides)  # type: ignore[arg-type]


_ADMITTED: dict[tuple[str, str], object] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch", "FloatStorage"): _StorageType("<f4"),
    ("torch", "LongStorage"): _StorageType("<i8"),
}


_OPCODES = frozenset(
    {
        *("PROTO", "GLOBAL", "REDUCE", "BUILD", "BINPERSID", "BINPUT", "LONG_BINPUT", "BINGET", "LONG_BINGET", "MARK"),
        *("STOP", "NONE", "NEWTRUE", "NEWFALSE", "BININT", "BININT1", "BININT2", "LONG1", "BINUNICODE", "EMPTY_TUPLE"),
        *("TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "APPEND", "APPENDS", "EMPTY_DICT", "SETITEM"),
        "SETITEMS",
    }
)
"""What Python 2 and 3 write these values with in protocol 2."""

_PUTS = frozenset({"BINPUT", "LONG_BINPUT"})
_MAXIMUM_MEMO = 1 << 16
"""The weights of EfficientNet-Lite 2 take 3,450."""


class _TensorsOnly(pickle.Unpickler):
    """An unpickler that knows only the four names above."""

    def find_class(self, module_name: str, global_name: str, /) -> Any:
        try:
            return _ADMITTED[module_name, global_name]
        except KeyError:
            raise pickle.UnpicklingError(f"it asks for {module_name}.{global_name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", _StorageType(dtype=dtype), str(key), "cpu", int(count), None) if _is_count(count):
                return _Storage(key, dtype, count)
        raise pickle.UnpicklingError("it refers to something that is not a storage")


def read_state_dict(path: Path, sha256: str) -> dict[str, _Array]:
    """Read all tensors of a legacy `.pth` file, by name, as contiguous arrays.

    Raises `Misconfigured` if the file is missing, is not the pinned one, or holds anything but tensors.
    """
    try:
        size_bytes = path.stat().st_size
        if size_bytes > MAX_FILE_BYTES:
            _refuse(path, f"it has {size_bytes} bytes, more than a weight file may have ({MAX_FILE_BYTES})")
        data = path.read_bytes()
    except OSError as error:
        raise Misconfigured(f"cannot read the weights {path}: {error.strerror}", reason="weights_missing") from error
    digest = hashlib.sha256(data).hexdigest()
    if digest != sha256:
        _refuse(path, f"its SHA-256 is {digest}, expected {sha256}: reinstall the package it belongs to")
    try:
        return _parse(io.BytesIO(data), len(data))
    except MemoryError:
        raise
    except Exception as error:  # pickle has no common class for what is wrong with its input
        raise Misconfigured(f"the weights {path} are refused: {error}", reason="weights_refused") from error


def _parse(file: io.BytesIO, size_bytes: int) -> dict[str, _Array]:
    if _load(file) != MAGIC or _load(file) != PROTOCOL:
        raise ValueError("this is not torch's legacy format")
    if _load(file).get("little_endian") is not True:
        raise ValueError("written by a big-endian machine")
    tensors, keys = _load(file), _load(file)
    if not isinstance(tensors, OrderedDict) or not all(isinstance(tensor, _Tensor) for tensor in tensors.values()):
        raise ValueError("the state dict holds something other than tensors")
    declared = {tensor.storage.key: tensor.storage for tensor in tensors.values()}
    if not isinstance(keys, list) or len(keys) != len(declared) or set(keys) != set(declared):
        raise ValueError("the list of storages does not match the tensors")
    values = {key: _read_storage(file, declared[key], size_bytes) for key in keys}
    if file.tell() != size_bytes:
        raise ValueError(f"{size_bytes - file.tell()} bytes too many at the end")
    return {str(name): _view(str(name), tensor, values[tensor.storage.key]) for name, tensor in tensors.items()}


def _load(file: io.BytesIO) -> Any:
    """The next pickle. One number of an opcode could make pickle take gigabytes, so they are looked at before."""
    start = file.tell()
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name not in _OPCODES or (opcode.name in _PUTS and int(argument or 0) > _MAXIMUM_MEMO):
            raise pickle.UnpicklingError(f"it has the opcode {opcode.name} with {str(argument)[:40]}")
    file.seek(start)
    return _TensorsOnly(file).load()


def _read_storage(file: io.BytesIO, storage: _Storage, size_bytes: int) -> _Array:
    (count,) = struct.unpack("<q", file.read(8))
    dtype = np.dtype(storage.dtype)
    if count != storage.count or count * dtype.itemsize > size_bytes - file.tell():
        raise ValueError(f"storage {storage.key} says {count} values, {storage.count} were declared")
    return np.frombuffer(file.read(count * dtype.itemsize), dtype)


def _view(name: str, tensor: _Tensor, values: _Array) -> _Array:
    """View the storage with the tensor's shape. Strides matter: these files keep TensorFlow's axis order in memory."""
    last = tensor.offset + sum(
        (length - 1) * stride for length, stride in zip(tensor.shape, tensor.strides, strict=True)
    )
    if 0 in tensor.shape or last >= len(values) or math.prod(tensor.shape) > len(values):
        raise ValueError(f"tensor {name} reaches outside its storage")
    byte_strides = tuple(stride * values.itemsize for stride in tensor.strides)
    view = np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, byte_strides, writeable=False)
    return np.ascontiguousarray(view)


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= MAX_FILE_BYTES


def _are_counts(value: object) -> bool:
    return type(value) is tuple and len(value) <= 8 and all(_is_count(item) for item in value)


def _refuse(path: Path, why: str) -> NoReturn:
    raise Misconfigured(f"the weights {path} are refused: {why}", reason="weights_refused")
