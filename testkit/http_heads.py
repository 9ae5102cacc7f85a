"""Heads of HTTP requests as real clients and proxies send them, and what three others make of a head.

`by_definition` is written after `_native/http/head.pxd` and too simple to be wrong; `by_h11` and `by_httptools` are the
libraries. All three return what the head means, or None if they refuse it.
"""

import re
import socket
from typing import NamedTuple

import h11
import httptools

CHROME = (
    b"GET /chess HTTP/1.1\r\nHost: games.example.com:7000\r\nConnection: Upgrade\r\nPragma: no-cache\r\n"
    b"Cache-Control: no-cache\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) "
    b"Chrome/126.0.0.0 Safari/537.36\r\nUpgrade: websocket\r\nOrigin: https://www.example.com\r\n"
    b"Sec-WebSocket-Version: 13\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    b"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
)
HEADS = {
    "chrome upgrades": CHROME,
    "firefox upgrades": (
        b"GET /?room=1&name=J%C3%BCrgen|x HTTP/1.1\r\nHost: [2001:db8::1]\r\nUser-Agent: Mozilla/5.0 (X11; Linux "
        b"x86_64; rv:128.0) Gecko/20100101 Firefox/128.0\r\nAccept: */*\r\nSec-WebSocket-Version: 13\r\n"
        b"Origin: null\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"
        b"Sec-WebSocket-Key: x3JJHMbDL1EzLkh9GBhXDw==\r\nConnection: keep-alive, Upgrade\r\n"
        b"Sec-Fetch-Dest: empty\r\nUpgrade: websocket\r\n\r\n"
    ),
    "upgrade without Upgrade, from squid": (
        b"GET /chess HTTP/1.1\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
        b"Host: games.example.com\r\nVia: 1.1 proxy (squid/5.7)\r\nX-Forwarded-For: 192.0.2.1\r\n"
        b"Cache-Control: max-age=259200\r\nConnection: keep-alive\r\n\r\n"
    ),
    "ffmpeg opens": (
        b"POST /open/1 HTTP/1.1\r\nContent-Type: application/x-fcs\r\nUser-Agent: Shockwave Flash\r\nAccept: */*\r\n"
        b"Range: bytes=0-\r\nConnection: keep-alive\r\nHost: 127.0.0.1:8080\r\nContent-Length: 1\r\n"
        b"Icy-MetaData: 1\r\n\r\n"
    ),
    "ffmpeg through a proxy": (
        b"POST http://games.example.com:8080/send/0123456789abcdef/7 HTTP/1.1\r\nContent-Type: application/x-fcs\r\n"
        b"User-Agent: Shockwave Flash\r\nAccept: */*\r\nConnection: keep-alive\r\nHost: games.example.com:8080\r\n"
        b"Content-Length: 1537\r\n\r\n"
    ),
    "rtmpdump polls": (
        b"POST /idle/0123456789abcdef/3 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept: */*\r\n"
        b"User-Agent: Shockwave Flash\r\nConnection: Keep-Alive\r\nCache-Control: no-cache\r\n"
        b"Content-type: application/x-fcs\r\nContent-length: 1\r\n\r\n"
    ),
    "squid polls": (
        b"POST /idle/0123456789abcdef/3 HTTP/1.1\r\nContent-Type: application/x-fcs\r\nContent-Length: 1\r\n"
        b"User-Agent: Shockwave Flash\r\nAccept: */*\r\nHost: 192.0.2.7:8080\r\nVia: 1.1 proxy (squid/5.7)\r\n"
        b"X-Forwarded-For: 192.0.2.1\r\nCache-Control: max-age=259200\r\nConnection: keep-alive\r\n\r\n"
    ),
    "nginx as it comes": (
        b"POST /send/0123456789abcdef/4 HTTP/1.0\r\nHost: upstream\r\nConnection: close\r\nContent-Length: 200\r\n\r\n"
    ),
    "haproxy": (
        b"GET /a HTTP/1.1\r\nhost: a.example\r\nconnection: Upgrade\r\nupgrade: websocket\r\n"
        b"x-forwarded-for: 192.0.2.1\r\n\r\n"
    ),
    "curl": b"GET /crossdomain.xml HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n\r\n",
    "curl posts": (
        b"POST /up HTTP/1.1\r\nHost: example.com\r\nUser-Agent: curl/7.88.1\r\nAccept: */*\r\n"
        b"Content-Length: 1048577\r\nContent-Type: application/x-www-form-urlencoded\r\nExpect: 100-continue\r\n\r\n"
    ),
    "curl asks for http2": (
        b"GET / HTTP/1.1\r\nHost: example.com\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
        b"HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n\r\n"
    ),
    "connect": b"CONNECT games.example.com:7000 HTTP/1.1\r\nHost: games.example.com:7000\r\n\r\n",
    "options": b"OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n",
    "empty path": b"GET HTTPS://Example.com?a=/b HTTP/1.1\r\nHost: other\r\n\r\n",
    "health check": b"HEAD / HTTP/1.0\r\n\r\n",
    "odd values": b"PUT /~a//../;b HTTP/1.1\r\nHost:\t a \t\r\nX:\r\nY: \xff a\tb \r\n!#$%&'*+-.^_`|~9: z\r\n\r\n",
}
MOST_BYTES, MOST_TARGET, MOST_FIELDS = 8192, 2048, 100


class Head(NamedTuple):
    """What a head means."""

    method: bytes
    target: bytes
    minor: int
    fields: list[tuple[bytes, bytes]]
    body_size: int


# ---------------------------------------------------------------------------------------------------- the definition

HOST = rb"(?:[0-9A-Za-z._~-]+|\[[0-9A-Fa-f:.]+\])"
PORT = rb"(?:0{0,4}[0-9]{1,4}|[0-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])"
PLAIN = rb"[!-\"$->@-~]"  # visible ASCII without # and ?
PATH_AND_QUERY = PLAIN + rb"*(?:\?(?:" + PLAIN + rb"|\?)*)?"
TARGET = (
    rb"(?:/" + PATH_AND_QUERY + rb"|(?i:https?)://" + HOST + rb"(?::" + PORT + rb"?)?(?:/" + PATH_AND_QUERY
    + rb"|\?(?:" + PLAIN + rb"|\?)*)?)"
)  # fmt: skip
REQUEST_LINE = re.compile(
    rb"(?:(GET|POST|HEAD|PUT|DELETE|TRACE|PATCH|OPTIONS) (" + TARGET + rb")|(OPTIONS) (\*)|(CONNECT) (" + HOST + rb":"
    + PORT + rb")) HTTP/1\.([01])"
)  # fmt: skip
FIELD = re.compile(
    rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*((?:[!-~\x80-\xff](?:[ \t!-~\x80-\xff]*[!-~\x80-\xff])?)?)[ \t]*"
)
HOST_VALUE = re.compile(rb"(?:" + HOST + rb"(?::" + PORT + rb"?)?)?")


BRACKETS = re.compile(rb"\[([^]]*)\]")


def _is_address(text: bytes) -> bool:
    try:
        socket.inet_pton(socket.AF_INET6, text.decode())
    except OSError:
        return False
    return True


def by_definition(data: bytes) -> Head | None:  # noqa: PLR0911 - one for each rule
    """`data` has nothing behind its first empty line."""
    if not data.endswith(b"\r\n\r\n") or len(data) > MOST_BYTES:
        return None
    first, *lines = data[:-4].split(b"\r\n")
    line = REQUEST_LINE.fullmatch(first)
    found = [FIELD.fullmatch(text) for text in lines]
    if line is None or None in found or len(found) > MOST_FIELDS:
        return None
    method, target = (line[1] or line[3] or line[5]), (line[2] or line[4] or line[6])
    fields = [(field[1], field[2]) for field in found if field]
    named: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        named.setdefault(name.lower(), []).append(value)
    hosts, lengths = named.get(b"host", []), named.get(b"content-length", [])
    if len(target) > MOST_TARGET or b"transfer-encoding" in named:
        return None
    if len(hosts) > 1 or (line[7] == b"1" and not hosts) or not all(map(HOST_VALUE.fullmatch, hosts)):
        return None
    authority = target if method == b"CONNECT" else target.partition(b"://")[2] * (target[:1] != b"/")
    if not all(
        _is_address(host) for text in [re.split(b"[/?]", authority)[0], *hosts] for host in BRACKETS.findall(text)
    ):
        return None
    if len(lengths) > 1 or not all(re.fullmatch(rb"[0-9]{1,18}", length) for length in lengths):
        return None
    if (lengths and method == b"CONNECT") or (b"upgrade" in named and any(map(int, lengths))):
        return None
    if any(value.lower() != b"100-continue" for value in named.get(b"expect", [])):
        return None
    return Head(method, target, int(line[7]), fields, int(lengths[0]) if lengths else 0)


# ----------------------------------------------------------------------------------------------------- the libraries

TRIED = 64  # bytes of a body


def by_h11(data: bytes) -> Head | None:
    """The length of the body is what h11 reads of it; from 64 bytes on it is -1."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        request = connection.next_event()
        if not isinstance(request, h11.Request):
            return None
        size = 0
        while not isinstance(event := connection.next_event(), h11.EndOfMessage):
            if isinstance(event, h11.Data):
                size += len(event.data)
            elif size < TRIED:
                connection.receive_data(b"x")
            else:
                break
    except h11.RemoteProtocolError:
        return None
    version = int(request.http_version.removeprefix(b"1."))
    fields = [(bytes(name), bytes(value)) for name, value in request.headers.raw_items()]
    return Head(bytes(request.method), bytes(request.target), version, fields, size if size < TRIED else -1)


class _Heard:
    """What llhttp reports."""

    def __init__(self) -> None:
        self.target, self.fields, self.size = b"", list[tuple[bytes, bytes]](), 0
        self.begun = self.complete = False

    def on_url(self, url: bytes) -> None:
        self.target += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self.fields.append((name, value.rstrip(b" \t")))  # llhttp leaves the space behind a value

    def on_headers_complete(self) -> None:
        self.begun = True

    def on_body(self, body: bytes) -> None:
        self.size += len(body)

    def on_message_complete(self) -> None:
        self.complete = True


def by_httptools(data: bytes) -> Head | None:
    """The length of the body as in `by_h11`."""
    heard = _Heard()
    parser = httptools.HttpRequestParser(heard)
    try:
        parser.feed_data(data)
        if not heard.begun:
            return None
        while not heard.complete and heard.size < TRIED:
            parser.feed_data(b"x")
    except httptools.HttpParserUpgrade:
        heard.complete = True  # an upgrade, or CONNECT: there is no body, or it has been read
    except httptools.HttpParserError:
        return None
    minor = int(parser.get_http_version().removeprefix("1."))
    return Head(parser.get_method(), heard.target, minor, heard.fields, heard.size if heard.complete else -1)
