"""AMF0 as far as the command `connect` and its replies need it.

`decode` reads what a stranger sent: it never raises but ValueError, nests at most `MOST_DEPTH` deep and makes at most
`MOST_VALUES` values.
"""

import math
import struct
from collections.abc import Callable, Mapping

Value = float | bool | str | None | dict[str, "Value"] | list["Value"]

MOST_DEPTH = 16
MOST_VALUES = 1000
_NUMBER, _BOOLEAN, _STRING, _OBJECT, _NULL, _END = 0, 1, 2, 3, 5, 9


def encode(*values: float | bool | str | Mapping[str, float | bool | str] | None) -> bytes:
    """Return values in AMF0. Raises ValueError if a string is too long for it."""
    return b"".join(map(_encoded, values))


def _encoded(value: float | bool | str | Mapping[str, float | bool | str] | None) -> bytes:
    if value is None:
        return bytes((_NULL,))
    if isinstance(value, bool):
        return bytes((_BOOLEAN, value))
    if isinstance(value, str):
        return bytes((_STRING,)) + _short(value)
    if isinstance(value, Mapping):
        fields = b"".join(_short(name) + _encoded(field) for name, field in value.items())
        return bytes((_OBJECT,)) + fields + bytes((0, 0, _END))
    return struct.pack(">Bd", _NUMBER, value)


def _short(text: str) -> bytes:
    data = text.encode()
    if len(data) > 0xFFFF:
        raise ValueError("a string is longer than 65,535 bytes")
    return struct.pack(">H", len(data)) + data


def decode(data: bytes) -> list[Value]:
    """Return all values. Raises ValueError if the bytes are not AMF0, or more than the limits allow."""
    reader = _Reader(data)
    values = []
    while reader.left:
        values.append(reader.value(0))
    return values


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0
        self._values = 0

    @property
    def left(self) -> int:
        return len(self._data) - self._at

    def value(self, depth: int) -> Value:
        self._values += 1
        if depth > MOST_DEPTH or self._values > MOST_VALUES:
            raise ValueError("a value of AMF0 is too deep, or has too many parts")
        marker = self._number(1)
        read = _READERS.get(marker)
        if read is None:
            raise ValueError(f"there is no type {marker} in AMF0 that a server sends here")
        return read(self, depth)

    def _take(self, size: int) -> bytes:
        if size > self.left:
            raise ValueError("a value of AMF0 ends early")
        self._at += size
        return self._data[self._at - size : self._at]

    def _number(self, size: int) -> int:
        return int.from_bytes(self._take(size), "big")

    def _text(self, size: int) -> str:
        return self._take(self._number(size)).decode("utf-8", "replace")

    def double(self, _: int) -> Value:
        [number] = struct.unpack(">d", self._take(8))
        return float(number) if math.isfinite(number) else 0.0

    def boolean(self, _: int) -> Value:
        return bool(self._number(1))

    def string(self, _: int) -> Value:
        return self._text(2)

    def long_string(self, _: int) -> Value:
        return self._text(4)

    def nothing(self, _: int) -> Value:
        return None

    def date(self, _: int) -> Value:
        self._take(10)
        return None

    def object(self, depth: int) -> Value:
        fields: dict[str, Value] = {}
        while True:
            name = self._text(2)
            if not name and self._data[self._at : self._at + 1] == bytes((_END,)):
                self._at += 1
                return fields
            fields[name] = self.value(depth + 1)

    def array_by_name(self, depth: int) -> Value:
        self._take(4)  # the length is a hint
        return self.object(depth)

    def array(self, depth: int) -> Value:
        length = self._number(4)
        return [self.value(depth + 1) for _ in range(length)]  # each takes a byte at least, and counts

    def typed_object(self, depth: int) -> Value:
        self._text(2)
        return self.object(depth)


_READERS: dict[int, Callable[[_Reader, int], Value]] = {
    0: _Reader.double, 1: _Reader.boolean, 2: _Reader.string, 3: _Reader.object, 5: _Reader.nothing,
    6: _Reader.nothing, 8: _Reader.array_by_name, 10: _Reader.array, 11: _Reader.date, 12: _Reader.long_string,
    15: _Reader.long_string, 16: _Reader.typed_object,
}  # fmt: skip
