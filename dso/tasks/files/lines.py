"""The lines of a text file, numbered, and what is wrong with their characters."""

from __future__ import annotations

import csv
import io
from collections import deque
from typing import BinaryIO

LONGEST = 1_000_000
"""Characters a line may have; more is taken for a file of another format."""

REPORT = 1024
"""Rows between two reports of progress."""


class Lines:
    """The physical lines of a text file, numbered; those of a bad record can be read again.

    A line ends at LF, CR LF or CR. Bytes that are no UTF-8 stay in it as surrogates.
    """

    def __init__(self, raw: BinaryIO) -> None:
        text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline="")
        self._read = text.readline
        self._again: deque[str | None] = deque()
        self.record: list[str | None] = []
        self.number = 0
        self.first = 1
        self.odd = False

    def __iter__(self) -> Lines:
        return self

    def start(self) -> None:
        """The next line starts a record."""
        self.record.clear()
        self.first = self.number + 1
        self.odd = False

    def back_to_second(self) -> None:
        """Read on behind the first line of the present record."""
        self._again.extendleft(reversed(self.record[1:]))
        self.number = self.first

    def __next__(self) -> str:
        line = self._again.popleft() if self._again else self._read(LONGEST)
        if line == "":
            raise StopIteration
        self.number += 1
        if line is not None and len(line) == LONGEST and line[-1] not in "\r\n":
            while (rest := self._read(LONGEST)) and rest[-1] not in "\r\n":
                pass
            line = None
        self.record.append(line)
        if line is None:
            raise csv.Error(f"line {self.number} has more than {LONGEST:,} characters")
        if not line.isascii() or "\0" in line:
            self.odd = True
        return line


def other_encoding(raw: io.BufferedReader) -> str | None:
    """What is wrong where the file is no UTF-8 at all."""
    head = raw.peek(4)[:4]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or b"\0" in head:
        return "starts like UTF-16 or binary data (NUL bytes or its mark); save it as UTF-8 text"
    return None


def bad_text(value: str) -> str | None:
    """What is wrong with the characters of a text, if anything."""
    if "\0" in value:
        return f"has a NUL byte at character {value.index(chr(0)) + 1}; remove it"
    try:
        value.encode()
    except UnicodeEncodeError as error:
        code = ord(value[error.start])
        byte = f"byte 0x{code - 0xDC00:02X}" if 0xDC80 <= code <= 0xDCFF else "half a character"
        return f"is not UTF-8 ({byte} at character {error.start + 1}); save the file as UTF-8"
    return None
