"""Text files that people made with programs of all kinds, read line by line: their encoding, and how CSV is divided.

Encodings are UTF-8, with or without a byte order mark, and UTF-16 with one; anything else would be a guess. A CSV file
has commas, semicolons or tabs between its cells, the same in all lines.
"""

from __future__ import annotations

import codecs
import csv
import stat
from collections.abc import Iterator
from pathlib import Path

from worker.errors import Misconfigured

LONGEST_LINE = 1 << 20
"""In characters. A file without line breaks is none of ours, and is not read into memory."""

_DELIMITERS = (",", ";", "\t")
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_LOOKED_AT_BYTES = 4096


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    """Each line with its number, line breaks included. Raises Misconfigured for what is no such file."""
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe could be read once only, a directory not at all
            raise Misconfigured(f"{path} is no file")
        encoding = _encoding(path)
        with path.open(encoding=encoding, newline="") as text:
            number = 0
            while line := text.readline(LONGEST_LINE):
                number += 1
                if len(line) == LONGEST_LINE:
                    raise Misconfigured(f"{path}, line {number} has more than {LONGEST_LINE - 1:,} characters")
                yield number, line
    except OSError as error:
        raise Misconfigured(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise Misconfigured(_undecodable(path, error)) from error


def rows_of_csv(path: Path, column: str) -> Iterator[tuple[int, list[str]]]:
    """The heading, which has to name `column`, in lower case; then each row, with its line and as many cells.

    White space around a cell does not count; empty lines are left out. Raises Misconfigured.
    """
    lines = (text for _, text in lines_of(path))
    first = next(lines, "")
    heading, delimiter = _heading(path, first, column)
    yield 1, heading
    rows = csv.reader(lines, delimiter=delimiter, strict=True)
    try:
        for row in rows:
            if not row:
                continue
            line = rows.line_num + 1
            if len(row) > len(heading):
                raise Misconfigured(
                    f"{path}, line {line} has {len(row)} cells, and the first line {len(heading)}: a text that "
                    "holds the separator has to be in double quotes"
                )
            yield line, [each.strip() for each in row] + [""] * (len(heading) - len(row))
    except csv.Error as error:
        raise Misconfigured(f"{path} is no CSV file, at line {rows.line_num + 1}: {error}") from error


def _heading(path: Path, first: str, column: str) -> tuple[list[str], str]:
    """The names of the columns, and the separator by which `column` is one of them."""
    for delimiter in _DELIMITERS:
        try:
            found = [name.strip().lower() for name in next(csv.reader([first], delimiter=delimiter), [])]
        except csv.Error:
            continue
        if column in found:
            return found, delimiter
    raise Misconfigured(
        f"{path}: its first line has to name a column `{column}`, and others, with commas, semicolons or tabs between"
    )


def _encoding(path: Path) -> str:
    with path.open("rb") as file:
        begin = file.read(_LOOKED_AT_BYTES)
    if begin.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise Misconfigured(f"{path} is UTF-32: save it as UTF-8")
    if begin.startswith(_UTF16):
        return "utf-16"
    if b"\0" in begin:
        raise Misconfigured(f"{path} is no text, or UTF-16 without a byte order mark: save it as UTF-8")
    return "utf-8-sig"


def _undecodable(path: Path, error: UnicodeDecodeError) -> str:
    if error.encoding.startswith("utf-16"):
        return f"{path} is UTF-16 that is damaged ({error.reason}): save it again, as UTF-8"
    line = _first_line_that_is_not_utf8(path)
    return f"{path} is not UTF-8 (line {line}): save it as UTF-8, or as UTF-16 with a byte order mark"


def _first_line_that_is_not_utf8(path: Path) -> int:
    """Its number; the decoder itself only knows the place within what it was given at once."""
    number = 0
    with path.open("rb") as file:
        while line := file.readline(LONGEST_LINE * 4):
            number += 1
            try:
                line.decode()
            except UnicodeDecodeError:
                break
    return number
