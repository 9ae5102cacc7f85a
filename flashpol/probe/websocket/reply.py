"""The head of an HTTP reply: read as far as browsers read it, with a list of what RFC 9112 does not allow."""

import re
from typing import NamedTuple

_STATUS_LINE = re.compile(rb"HTTP/(\d{1,3})\.(\d{1,3})[ \t]+(\d{3})(?:[ \t]+([^\r\n]*))?")
_STRICT_STATUS_LINE = re.compile(rb"HTTP/\d\.\d \d{3}(?: [^\0-\x08\x0a-\x1f\x7f]*)?")
_NAME = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEAD_END = re.compile(rb"\r?\n\r?\n")
_CONTROL = re.compile(rb"[\0-\x08\x0a-\x1f\x7f]")
# Statuses without a body, beside those of 1xx.
_BODILESS = (204, 304)


class Head(NamedTuple):
    """`fields` are in order, their names in lower case. `size` is where the body begins. `flaws` says what is wrong."""

    version: str
    status: int
    reason: str
    fields: tuple[tuple[str, str], ...]
    size: int
    flaws: tuple[str, ...] = ()

    def all(self, name: str) -> list[str]:
        return [value for field, value in self.fields if field == name]

    def get(self, name: str) -> str:
        """Return the values of a field as one list, empty without any."""
        return ", ".join(self.all(name))

    def tokens(self, name: str) -> list[str]:
        return [token.strip().lower() for token in self.get(name).split(",") if token.strip()]

    @property
    def line(self) -> str:
        """The status with its reason, as in `404 Not Found`."""
        return f"{self.status} {self.reason}".rstrip()


def read_head(data: bytes) -> Head | None:
    """Return the head, or None if it is not complete or cannot be read. One of 1xx is final too, as for Chromium."""
    end = _HEAD_END.search(data)
    if end is None or not data.startswith(b"HTTP/") or b"\0" in data[: end.start()]:
        return None
    return _read(data[: end.start()], end.end(), bare=end[0] != b"\r\n\r\n")


def _read(data: bytes, size: int, *, bare: bool) -> Head | None:
    first, *lines = data.split(b"\n")
    match = _STATUS_LINE.fullmatch(first.removesuffix(b"\r"))
    if match is None:
        return None
    flaws = []
    if not _STRICT_STATUS_LINE.fullmatch(first.removesuffix(b"\r")):
        flaws.append("its status line has bytes that do not belong there")
    if bare or any(not line.endswith(b"\r") for line in (first, *lines)[:-1]):
        flaws.append("its lines end with LF instead of CRLF")
    fields: list[tuple[str, str]] = []
    for line in lines:
        written = line.removesuffix(b"\r")
        name, colon, value = written.partition(b":")
        if written[:1] in (b" ", b"\t"):
            flaws.append("a field continues on the next line")
        elif not colon or not _NAME.fullmatch(name.rstrip(b" \t")):
            flaws.append("a line of it is not a field")
        else:
            if name != name.rstrip(b" \t"):
                flaws.append(f"a blank precedes the colon of {name.decode('latin-1').strip()}")
            if _CONTROL.search(value):
                flaws.append(f"{name.decode('latin-1').strip()} has a control character")
            fields.append((name.rstrip(b" \t").decode("latin-1").lower(), value.strip(b" \t").decode("latin-1")))
    return Head(
        version=f"HTTP/{int(match[1])}.{int(match[2])}",
        status=int(match[3]),
        reason=(match[4] or b"").decode("latin-1").strip(),
        fields=tuple(fields),
        size=size,
        flaws=tuple(dict.fromkeys(flaws)),
    )


def body_is_complete(head: Head, data: bytes) -> bool:
    """Whether the body of a refusal has come, if its end can be seen before that of the connection."""
    body = data[head.size :]
    if head.status in _BODILESS or head.status < 200:
        return True
    if "chunked" in head.tokens("transfer-encoding"):
        return body.endswith(b"0\r\n\r\n")
    length = head.get("content-length")
    return length.isdecimal() and len(length) <= 9 and len(body) >= int(length)


def first_words(head: Head, data: bytes) -> str:
    """Return the first line of a body in plain text; empty if it has none for people: HTML, compressed, binary."""
    body = data[head.size :]
    if "chunked" in head.tokens("transfer-encoding"):
        body = body.partition(b"\r\n")[2].partition(b"\r\n")[0]
    kind = head.get("content-type").partition(";")[0].strip().lower()
    if head.get("content-encoding") or (kind and kind not in ("text/plain", "application/json")):
        return ""
    text = body[:2000].decode("utf-8", "replace").strip()
    if text.startswith("<"):
        return ""
    line = next(iter(text.splitlines()), "").strip()
    return line if line.isprintable() else ""
