"""What a BMP's header says about kinds of it that Pillow cannot decode."""

from __future__ import annotations

_COMPRESSIONS = {0: "", 1: "RLE", 2: "RLE", 3: "", 4: "an embedded JPEG", 5: "an embedded PNG", 6: ""}
_READ_COMPRESSIONS = frozenset({0, 1, 2, 3})
_READ_BITS = frozenset({1, 4, 8, 16, 24, 32})
_BIT_FIELDS = 3
_CORE_HEADER_BYTES = 12


def kind_not_read(data: bytes) -> str | None:
    """What people call a BMP of a kind that is not decoded; None for the others."""
    if len(data) < 14 + 40 or int.from_bytes(data[14:18], "little") == _CORE_HEADER_BYTES:
        return None
    bits, compression = int.from_bytes(data[28:30], "little"), int.from_bytes(data[30:34], "little")
    if compression not in _READ_COMPRESSIONS:
        return f"a BMP with {_COMPRESSIONS.get(compression) or f'compression {compression}'}"
    if bits not in _READ_BITS:
        return f"a BMP with {bits} bits a pixel"
    return "a BMP with channels of unusual bits" if compression == _BIT_FIELDS else None
