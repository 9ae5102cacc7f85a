"""URLs of WebSockets, and the origins of pages, as browsers read them."""

import pytest

from flashpol.probe.websocket.request import accept_for, asked, frame, new_key, request
from flashpol.probe.websocket.url import origin_of, parse


@pytest.mark.parametrize(
    ("text", "shown", "host", "port", "target", "origin"),
    [
        ("ws://a.example", "ws://a.example/", "a.example", 80, "/", "http://a.example"),
        ("wss://a.example/chess?x=1", "wss://a.example/chess?x=1", "a.example", 443, "/chess?x=1", "https://a.example"),
        ("WSS://A.Example:443/A", "wss://a.example/A", "a.example", 443, "/A", "https://a.example"),
        ("wss://a.example:8443/", "wss://a.example:8443/", "a.example", 8443, "/", "https://a.example"),
        ("http://a.example:8080", "ws://a.example:8080/", "a.example", 8080, "/", "http://a.example"),
        ("https://a.example/x", "wss://a.example/x", "a.example", 443, "/x", "https://a.example"),
        ("ws://a.example?q", "ws://a.example/?q", "a.example", 80, "/?q", "http://a.example"),
        ("ws://[2001:DB8::1]:81/", "ws://[2001:db8::1]:81/", "2001:db8::1", 81, "/", "http://[2001:db8::1]"),
        ("ws://bücher.example/ü b", "ws://xn--bcher-kva.example/%C3%BC%20b", "xn--bcher-kva.example", 80,
         "/%C3%BC%20b", "http://xn--bcher-kva.example"),
        ("ws://127.0.0.1:7000/", "ws://127.0.0.1:7000/", "127.0.0.1", 7000, "/", "http://127.0.0.1"),
    ],
)  # fmt: skip
def test_url_is_read_as_browsers_do(text: str, shown: str, host: str, port: int, target: str, origin: str) -> None:
    url = parse(text)
    assert (str(url), url.host, url.port, url.target, url.origin) == (shown, host, port, target, origin)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a.example:8080", "write ws://HOST:PORT/PATH"),
        ("ftp://a.example/", "write ws://HOST:PORT/PATH"),
        ("", "write ws://HOST:PORT/PATH"),
        ("ws://a.example/#x", "leave out what follows `#`"),
        ("ws://user:secret@a.example/", "leave out the user and the password"),
        ("ws:///chess", "write a host"),
        ("ws://a.example:0/", "a port from 1 to 65535"),
        ("ws://a.example:65536/", "a port from 1 to 65535"),
        ("ws://a.example:x/", "a port from 1 to 65535"),
        ("ws://a b/", "write a host"),
        ("ws://a..b/", "'a..b' is not a host"),
        ("ws://a\r\nb/", "write a host"),
        ("ws://-a.example/", "is not a host"),
    ],
)
def test_url_that_browsers_refuse_says_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said.replace(".", r"\.")):
        parse(text)


@pytest.mark.parametrize(
    ("page", "origin"),
    [
        ("https://www.example.com", "https://www.example.com"),
        ("https://WWW.Example.com:443/game.html?x#y", "https://www.example.com"),
        ("http://www.example.com:8080/", "http://www.example.com:8080"),
        ("http://www.example.com:443", "http://www.example.com:443"),
        ("https://bücher.example/", "https://xn--bcher-kva.example"),
        ("http://[::1]:8000/", "http://[::1]:8000"),
        ("http://[::1]", "http://[::1]"),
        ("chrome-extension://abcdef/page.html", "chrome-extension://abcdef"),
        ("null", "null"),
        ("file:///home/me/game.html", "null"),
        ("data:text/html,x", "null"),
    ],
)
def test_origin_of_a_page_is_that_of_browsers(page: str, origin: str) -> None:
    assert origin_of(page) == origin


@pytest.mark.parametrize("page", ["", "www.example.com", "https://", "https://a b", "https://a\r\nX: y"])
def test_origin_that_is_none_is_refused(page: str) -> None:
    with pytest.raises(ValueError, match="write "):
        origin_of(page)


@pytest.mark.parametrize(
    ("text", "loopback"),
    [("ws://127.9.9.9/", True), ("ws://[::1]/", True), ("ws://localhost/", True), ("ws://a.localhost/", True),
     ("ws://127.0.0.1.example/", False), ("ws://10.0.0.1/", False), ("ws://notlocalhost/", False)],
)  # fmt: skip
def test_loopback_is_what_browsers_trust(text: str, loopback: bool) -> None:
    assert parse(text).is_loopback is loopback


def test_request_has_the_fields_of_chromium_in_its_order() -> None:
    """Chromium 156 sent these, for `new WebSocket`."""
    data = request(parse("wss://a.example:8443/chess"), "https://www.example.com", "AAAA")
    first, *fields = data.decode().removesuffix("\r\n\r\n").split("\r\n")
    assert first == "GET /chess HTTP/1.1"
    assert [field.partition(":")[0] for field in fields] == [
        "Host", "Connection", "Pragma", "Cache-Control", "User-Agent", "Upgrade", "Origin", "Sec-WebSocket-Version",
        "Accept-Encoding", "Accept-Language", "Sec-WebSocket-Key", "Sec-WebSocket-Extensions",
    ]  # fmt: skip
    assert fields[0] == "Host: a.example:8443"
    assert tuple(asked(data)) == ("https://www.example.com", "AAAA")


def test_request_without_upgrade_asks_for_no_websocket() -> None:
    data = request(parse("ws://a.example/"), "https://www.example.com", "")
    assert b"websocket" not in data.lower()
    assert tuple(asked(data)) == ("https://www.example.com", "")


def test_accept_is_that_of_the_rfc() -> None:
    assert accept_for("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
    assert len(new_key()) == 24
    assert new_key() != new_key()


def test_frame_of_a_client_is_masked() -> None:
    data = frame(0x9, b"flashpol")
    assert data[:2] == b"\x89\x88"
    assert bytes(byte ^ data[2 + at % 4] for at, byte in enumerate(data[6:])) == b"flashpol"
