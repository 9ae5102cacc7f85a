"""The head of an HTTP request: what is refused and where, in any pieces, and compared with h11 and llhttp."""

from itertools import permutations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flashpol._fastpath import RequestHead, Verdict
from fuzz.http import check_head, check_pieces, state
from testkit.examples import examples
from testkit.http_heads import CHROME, HEADS, MOST_BYTES, MOST_FIELDS, MOST_TARGET

MORE, MATCH, OTHER = Verdict.MORE, Verdict.MATCH, Verdict.OTHER
thorough = examples(500)

LINE = b"GET / HTTP/1.1\r\n"
HOST = LINE + b"Host: a\r\n"


def read(stream: bytes) -> RequestHead:
    head = RequestHead()
    head.feed(stream)
    return head


# ----------------------------------------------------------------------------------------------------- what it refuses

# What others have read in two ways, and what is no request. The last byte of each is the one that decides.
REFUSED = {
    # The request line.
    "empty line before the request": (b"\r", 400),
    "space before the request": (b" ", 400),
    "byte order mark": (b"\xef", 400),
    "method in lower case": (b"g", 400),
    "method that differs in its last letter": (b"GEX", 400),
    "method that is longer": (b"GETS", 400),
    "method that no client has": (b"B", 400),
    "tab after the method": (b"GET\t", 400),
    "two spaces after the method": (b"GET  ", 400),
    "target of no form": (b"GET x", 400),
    "query without a path": (b"GET ?", 400),
    "asterisk with another method": (b"GET *", 400),
    "asterisk and more": (b"OPTIONS */", 400),
    "fragment": (b"GET /a#", 400),
    "fragment after a query": (b"GET /a?b#", 400),
    "NUL in the target": (b"GET /\0", 400),
    "tab in the target": (b"GET /a\t", 400),
    "DEL in the target": (b"GET /\x7f", 400),
    "target that is not ASCII": (b"GET /\xc3", 400),
    "LF after the target": (b"GET /\n", 400),
    "no version, as in HTTP/0.9": (b"GET /\r", 505),
    "two spaces after the target": (b"GET /  ", 400),
    "space in the target": (b"GET /a b", 400),
    "version in lower case": (b"GET / h", 400),
    "version of another protocol": (b"GET / HTTPS", 400),
    "version without a dot": (b"GET / HTTP/11", 400),
    "version with a letter": (b"GET / HTTP/1.x", 400),
    "version with two digits": (b"GET / HTTP/1.10", 400),
    "version with a leading zero": (b"GET / HTTP/01", 400),
    "version 0.9": (b"GET / HTTP/0.9", 505),
    "version 1.2": (b"GET / HTTP/1.2", 505),
    "version 2.0": (b"GET / HTTP/2.0", 505),
    "preface of HTTP/2": (b"PRI * HTTP/2.0", 505),
    "preface of HTTP/2 with a version that is served": (b"PRI * HTTP/1.1", 400),
    "space after the version": (b"GET / HTTP/1.1 ", 400),
    "LF after the version": (b"GET / HTTP/1.1\n", 400),
    "CR without LF after the version": (b"GET / HTTP/1.1\rH", 400),
    # The absolute form and the authority form.
    "scheme of another protocol": (b"GET ht:", 400),
    "scheme of a file": (b"GET f", 400),
    "scheme without slashes": (b"GET http:a", 400),
    "scheme that is longer": (b"GET httpx", 400),
    "absolute form without a host": (b"GET http:///", 400),
    "absolute form that ends after its slashes": (b"GET http:// ", 400),
    "absolute form with a port alone": (b"GET http://:80/", 400),
    "user in the URI": (b"GET http://user@", 400),
    "user and password in the URI": (b"GET http://user:secret@", 400),
    "backslash for the host's end": (b"GET http://a\\", 400),
    "escaped host": (b"GET http://a%", 400),
    "port with a letter": (b"GET http://a:8x/", 400),
    "port too large": (b"GET http://a:65536/", 400),
    "two ports": (b"GET http://a:80:81/", 400),
    "open bracket": (b"GET http://[::1/", 400),
    "empty brackets": (b"GET http://[]/", 400),
    "letters after brackets": (b"GET http://[::1]x/", 400),
    "brackets after letters": (b"GET http://a[::1]/", 400),
    "letter in brackets": (b"GET http://[a]/", 400),
    "IPv4 address in brackets": (b"GET http://[192.0.2.1]/", 400),
    "too many groups": (b"CONNECT [1:2:3:4:5:6:7:8:9]:1 ", 400),
    "two ellipses": (LINE + b"Host: [1::2::3]\r\n", 400),
    "longer than an address": (LINE + b"Host: [" + b"0" * 46 + b"]\r\n", 400),
    "name in brackets": (b"GET http://[example.com]/", 400),
    "CONNECT with a path": (b"CONNECT /", 400),
    "CONNECT without a port": (b"CONNECT a ", 400),
    "CONNECT with an empty port": (b"CONNECT a: ", 400),
    "CONNECT with a URI": (b"CONNECT http:/", 400),
    "CONNECT with a length": (b"CONNECT a:1 HTTP/1.0\r\nContent-Length: 1\r\n", 400),
    # Fields.
    "space before the first field": (LINE + b" ", 400),
    "tab before the first field": (LINE + b"\t", 400),
    "folded line": (HOST + b"X: a\r\n ", 400),
    "folded line by a tab": (HOST + b"X: a\r\n\t", 400),
    "space before the colon": (HOST + b"Content-Length ", 400),
    "tab before the colon": (HOST + b"Content-Length\t", 400),
    "no name": (HOST + b":", 400),
    "no colon": (HOST + b"X\r", 400),
    "bracket in a name": (HOST + b"X[", 400),
    "NUL in a name": (HOST + b"X\0", 400),
    "CR before the colon": (HOST + b"Content-Length\r", 400),
    "name that is not ASCII": (HOST + b"\xc3", 400),
    "NUL in a value": (HOST + b"X: a\0", 400),
    "NUL before a value": (HOST + b"X:\0", 400),
    "vertical tab before a value": (HOST + b"Transfer-Encoding:\x0b", 400),
    "form feed in a value": (HOST + b"X: \x0c", 400),
    "DEL in a value": (HOST + b"X: a\x7f", 400),
    "escape in a value": (HOST + b"X: \x1b", 400),
    "LF at the end of a value": (HOST + b"X: a\n", 400),
    "CR in a value": (HOST + b"X: a\rb", 400),
    "two CR at the end of a value": (HOST + b"X: a\r\r", 400),
    "empty line of LF": (HOST + b"\n", 400),
    "empty line of CR": (HOST + b"\rG", 400),
    # The host.
    "no host in HTTP/1.1": (LINE + b"X: a\r\n\r\n", 400),
    "two hosts": (HOST + b"Host: b\r\n", 400),
    "two equal hosts, in other letters": (HOST + b"HOST: a\r\n", 400),
    "two hosts in HTTP/1.0": (b"GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n", 400),
    "two hosts in one field": (LINE + b"Host: a, b\r\n", 400),
    "user in the host": (LINE + b"Host: user@a\r\n", 400),
    "path in the host": (LINE + b"Host: a/b\r\n", 400),
    "host of an absolute form as a field": (LINE + b"Host: http://a\r\n", 400),
    "host with a port too large": (LINE + b"Host: a:99999\r\n", 400),
    "port alone": (LINE + b"Host: :80\r\n", 400),
    # The length of the body.
    "two lengths": (HOST + b"Content-Length: 1\r\nContent-Length: 2\r\n", 400),
    "two equal lengths": (HOST + b"Content-Length: 1\r\nContent-length: 1\r\n", 400),
    "two lengths in one field": (HOST + b"Content-Length: 1, 1\r\n", 400),
    "no length": (HOST + b"Content-Length:\r\n", 400),
    "length with a sign": (HOST + b"Content-Length: +1\r\n", 400),
    "length below 0": (HOST + b"Content-Length: -1\r\n", 400),
    "length in hexadecimal": (HOST + b"Content-Length: 0x1\r\n", 400),
    "length with a fraction": (HOST + b"Content-Length: 1.0\r\n", 400),
    "length with an underscore": (HOST + b"Content-Length: 1_0\r\n", 400),
    "length with a space within": (HOST + b"Content-Length: 1 0\r\n", 400),
    "length in other digits": (HOST + "Content-Length: ١\r\n".encode(), 400),
    "length of 19 digits": (HOST + b"Content-Length: 1000000000000000000\r\n", 400),
    "length of 19 digits, most of them 0": (HOST + b"Content-Length: 0000000000000000001\r\n", 400),
    "length, then a coding": (HOST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n", 400),
    "coding, then a length": (HOST + b"Transfer-Encoding: chunked\r\nContent-Length: 1\r\n", 400),
    "unknown coding, then a length": (HOST + b"Transfer-Encoding: x\r\nContent-Length: 1\r\n", 400),
    "coding in HTTP/1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n", 400),
    "coding without a host": (LINE + b"Transfer-Encoding: chunked\r\n\r\n", 400),
    "upgrade, then a length": (HOST + b"Upgrade: h2c\r\nContent-Length: 1\r\n", 400),
    "length, then an upgrade": (HOST + b"Content-Length: 1\r\nUpgrade: websocket\r\n", 400),
    "chunked": (HOST + b"Transfer-Encoding: chunked\r\n\r\n", 411),
    "chunked in other letters": (HOST + b"transfer-encoding:CHUNKED \r\n\r\n", 411),
    "chunked twice": (HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n", 501),
    "chunked and identity": (HOST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 501),
    "chunked, chunked": (HOST + b"Transfer-Encoding: chunked, chunked\r\n\r\n", 501),
    "gzip, chunked": (HOST + b"Transfer-Encoding: gzip, chunked\r\n\r\n", 501),
    "chunked with a parameter": (HOST + b"Transfer-Encoding: chunked;x\r\n\r\n", 501),
    "identity": (HOST + b"Transfer-Encoding: identity\r\n\r\n", 501),
    "empty coding": (HOST + b"Transfer-Encoding:\r\n\r\n", 501),
    "misspelt chunked": (HOST + b"Transfer-Encoding: xchunked\r\n\r\n", 501),
    "expectation": (HOST + b"Expect: 200-ok\r\n\r\n", 417),
    "empty expectation": (HOST + b"Expect:\r\n\r\n", 417),
    "expectation beside 100-continue": (HOST + b"Expect: 100-continue\r\nExpect: x\r\n\r\n", 417),
    "expectation of a body in a coding": (HOST + b"Expect: x\r\nTransfer-Encoding: chunked\r\n\r\n", 411),
}


@pytest.mark.parametrize(("stream", "status"), REFUSED.values(), ids=REFUSED)
def test_request_head_is_refused_at_the_byte_that_decides(stream: bytes, status: int) -> None:
    head = RequestHead()
    if stream[:-1]:
        assert head.feed(stream[:-1]) is MORE
    assert head.status is None
    assert head.feed(stream[-1:]) is OTHER
    assert (head.status, head.consumed) == (status, 0)
    assert state(read(stream + b"\r\nHost: a\r\n\r\n")) == state(head)


# ----------------------------------------------------------------------------------------------------- what it accepts


@pytest.mark.parametrize("data", HEADS.values(), ids=HEADS)
@pytest.mark.parametrize("after", [b"", b"x", b"GET / HTTP/1.1\r\n"])
def test_request_head_of_a_client_matches(data: bytes, after: bytes) -> None:
    head = check_head(data + after)
    assert head.consumed == len(data)
    check_pieces(head, data + after, [1])


def test_request_head_has_what_the_client_sent() -> None:
    head = read(HEADS["curl posts"] + b"body")
    assert (head.method, head.target, head.path, head.minor) == (b"POST", b"/up", b"/up", 1)
    assert head.fields[0] == (b"Host", b"example.com")
    assert (head.body_size, head.expects_continue) == (1048577, True)
    assert head.find(b"content-type") == b"application/x-www-form-urlencoded"
    assert (head.find(b"origin"), head.count(b"origin"), head.count(b"accept")) == (None, 0, 1)
    head = read(b"GET / HTTP/1.0\r\nX: 1\r\nx: 2\r\nY: 3\r\n\r\n")
    assert (head.minor, head.body_size, head.expects_continue) == (0, 0, False)
    assert (head.find(b"x"), head.count(b"x")) == (b"1", 2)


def test_request_head_find_ignores_the_case_of_letters_alone() -> None:
    alphabet = b"abcdefghijklmnopqrstuvwxyz"
    head = read(b"GET / HTTP/1.0\r\n^_: 1\r\n" + alphabet.upper() + b": 2\r\n" + alphabet + b": 3\r\n\r\n")
    assert (head.find(b"^_"), head.find(b"~_"), head.find(b"~\x7f")) == (b"1", None, None)
    assert (head.find(alphabet), head.count(alphabet), head.find(alphabet[1:])) == (b"2", 2, None)


@pytest.mark.parametrize(
    ("line", "path"),
    [
        (b"GET /", b"/"),
        (b"GET /a/b", b"/a/b"),
        (b"GET /a?b?c/d", b"/a"),
        (b"GET /?", b"/"),
        (b"GET //a//b/../c", b"//a//b/../c"),
        (b'GET /%2e%2F|\\"<>[]^`{}', b'/%2e%2F|\\"<>[]^`{}'),
        (b"POST http://host/open/1", b"/open/1"),
        (b"POST HTTP://host:8080/open/1?x", b"/open/1"),
        (b"GET https://[::1]:443/", b"/"),
        (b"GET http://host", b"/"),
        (b"GET http://host:", b"/"),
        (b"GET http://host?a=/b", b"/"),
        (b"OPTIONS *", b""),
        (b"OPTIONS /a", b"/a"),
        (b"CONNECT host:7000", b""),
        (b"CONNECT [::1]:7000", b""),
    ],
)
def test_request_head_path_is_that_of_the_target(line: bytes, path: bytes) -> None:
    head = check_head(line + b" HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (head.path, head.target) == (path, line.partition(b" ")[2])


@pytest.mark.parametrize(
    "value", [b"", b"a", b"a:", b"a:80", b"a.b-c_d~:65535", b"192.0.2.1:1", b"[::1]", b"[::ffff:192.0.2.1]:80"]
)
def test_request_head_with_a_host_matches(value: bytes) -> None:
    assert check_head(LINE + b"hOsT:" + value + b"\r\n\r\n").find(b"host") == value


@pytest.mark.parametrize(("digits", "size"), [(b"0", 0), (b"007", 7), (b" \t9 \t", 9), (b"9" * 18, 10**18 - 1)])
def test_request_head_body_size_is_its_content_length(digits: bytes, size: int) -> None:
    assert check_head(HOST + b"Content-Length:" + digits + b"\r\n\r\n").body_size == size


def test_request_head_of_an_upgrade_with_length_0_matches() -> None:
    fields = [b"Upgrade: h2c\r\n", b"Content-Length: 0\r\n", b"Connection: upgrade\r\n"]
    for order in permutations(fields):
        assert check_head(HOST + b"".join(order) + b"\r\n").body_size == 0


def test_request_head_of_http_1_0_expects_nothing() -> None:
    head = check_head(b"POST / HTTP/1.0\r\nExpect: 100-Continue\r\nContent-Length: 1\r\n\r\n")
    assert not head.expects_continue
    assert check_head(HOST + b"Expect: 100-Continue\r\n\r\n").expects_continue


# ----------------------------------------------------------------------------------------------------------- its limits


def of_size(size: int) -> bytes:
    return HOST + b"X: " + b"x" * (size - len(HOST) - 7) + b"\r\n\r\n"


def test_request_head_of_8192_bytes_matches_and_a_longer_one_is_refused() -> None:
    assert check_head(of_size(MOST_BYTES) + b"x").consumed == MOST_BYTES
    head = RequestHead()
    assert head.feed(of_size(MOST_BYTES + 1)[: MOST_BYTES - 1]) is MORE
    assert head.feed(b"\r") is OTHER  # of 8,192 bytes none can be the last one of the head
    assert head.status == 431
    assert read(of_size(MOST_BYTES + 1)).status == read(of_size(5 * MOST_BYTES)).status == 431
    assert read(of_size(MOST_BYTES + 1)[: MOST_BYTES - 1] + b"\0").status == 400
    assert read(of_size(MOST_BYTES + 1)[:MOST_BYTES] + b"\0").status == 431


def test_request_head_with_100_fields_matches_and_one_more_is_refused() -> None:
    full = HOST + b"X:\r\n" * (MOST_FIELDS - 1)
    assert len(check_head(full + b"\r\n").fields) == MOST_FIELDS
    head = RequestHead()
    assert head.feed(full) is MORE
    assert head.feed(b"Y") is OTHER
    assert (head.status, len(head.fields)) == (431, MOST_FIELDS)
    assert read(full + b" ").status == 400


@pytest.mark.parametrize("begin", [b"GET /", b"GET /?", b"GET http://a/", b"GET http://a", b"CONNECT ", b"OPTIONS h"])
def test_request_head_with_a_target_of_2048_bytes_matches_and_a_longer_one_is_refused(begin: bytes) -> None:
    method, _, rest = begin.partition(b" ")
    end = b":1" if method == b"CONNECT" else b""
    if rest == b"h":
        rest = b"http://a:1?"
    target = rest + b"a" * (MOST_TARGET - len(rest) - len(end)) + end
    assert check_head(method + b" " + target + b" HTTP/1.1\r\nHost: a\r\n\r\n").target == target
    head = RequestHead()
    assert head.feed(method + b" " + target) is MORE
    assert head.feed(b"1") is OTHER
    assert head.status == 414
    assert read(method + b" " + target + b"1" * 9000).status == 414


# ----------------------------------------------------------------------------------------------------------- the object


def test_request_head_fed_after_its_verdict_ignores_it() -> None:
    head = read(CHROME + b"frames")
    before = state(head)
    assert [head.feed(more) for more in (b"", b"\0", CHROME)] == [MATCH] * 3
    assert state(head) == before
    head = read(b"GET x")
    assert [head.feed(more) for more in (b"", b"/", CHROME)] == [OTHER] * 3
    assert (head.status, head.consumed, head.fields) == (400, 0, [])


def test_request_head_before_its_first_byte_is_empty() -> None:
    head = RequestHead()
    assert head.feed(b"") is MORE
    assert state(head) == (0, None, b"", b"", b"", 0, [], 0, False)


def test_request_head_keeps_no_view_of_what_it_is_fed() -> None:
    data = bytearray(CHROME)
    head = RequestHead.parse(data)
    data[:] = bytes(len(data))
    assert state(head) == state(read(CHROME)) == state(RequestHead.parse(CHROME + b"x"))


@pytest.mark.parametrize("data", [b"", CHROME[:-1], b"\0", b"x" * 9000])
def test_request_head_parse_of_what_is_no_whole_head_raises(data: bytes) -> None:
    with pytest.raises(ValueError, match="not the whole head"):
        RequestHead.parse(data)


@pytest.mark.parametrize("wrong", [None, "text", 7])
def test_request_head_fed_no_bytes_raises(wrong: object) -> None:
    with pytest.raises(TypeError):
        RequestHead().feed(wrong)  # type: ignore[arg-type]


# ---------------------------------------------------------------------------------------------------------- any bytes

LINES = [
    b"Content-Length: 3", b"Content-Length: 3 ", b"content-length:03", b"Transfer-Encoding: chunked", b"Host: b",
    b"Host: a:1", b"Expect: 100-continue", b"Expect: x", b"Connection: upgrade", b"Upgrade: websocket", b"Upgrade: h2c",
    b"Connection: close, Content-Length", b"Connection: Transfer-Encoding", b"X:", b"X: \xff\x80", b" folded", b"X : y",
    b"Content-Length: 18446744073709551619", b"Trailer: x", b"Proxy-Connection: keep-alive", b"Keep-Alive: 5",
]  # fmt: skip
FIRST = [
    b"GET / HTTP/1.1", b"GET / HTTP/1.0", b"POST http://a:80/?b HTTP/1.1", b"CONNECT a:1 HTTP/1.1", b"GET /",
    b"OPTIONS * HTTP/1.0", b"TRACE / HTTP/1.1", b"PRI * HTTP/2.0", b"GET * HTTP/1.1", b"SOURCE / HTTP/1.1",
]  # fmt: skip
SPLICED = [
    b"\r\n", b"\r", b"\n", b" ", b"\t", b"\0", b":", b",", b"\x0b", b"\x7f", b"\xa0", b"\r\n\r\n", b"\r\n ", b"#", b"?",
    b"@", b"%00", b"chunked", b"HTTP/1.1", b"[", b"//", b"\r\nHost: c", b"0", b"9" * 17, b"x" * 2048, b"X: y\r\n" * 99,
]  # fmt: skip
places = st.integers(0, 600)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    """A client's head after some changes: to its lines, then to its bytes."""
    lines = draw(st.sampled_from(list(HEADS.values()))).removesuffix(b"\r\n\r\n").split(b"\r\n")
    for _ in range(draw(st.integers(0, 3))):
        at = draw(places) % len(lines)
        change = draw(st.sampled_from(["insert", "repeat", "remove", "swap case", "first"]))
        if change == "insert":
            lines.insert(at + 1, draw(st.sampled_from(LINES)))
        elif change == "repeat":
            lines.append(lines[at])
        elif change == "remove" and at:
            del lines[at]
        elif change == "swap case" and at:
            lines[at] = lines[at].swapcase()
        elif change == "first":
            lines[0] = draw(st.sampled_from(FIRST))
    data = b"\r\n".join(lines) + b"\r\n\r\n"
    for _ in range(draw(st.integers(0, 2))):
        at = draw(places) % (len(data) + 1)
        data = data[:at] + draw(st.sampled_from(SPLICED)) + data[at + draw(st.integers(0, 2)) :]
    return data + draw(st.sampled_from([b"", b"\0", b"body", b"GET / HTTP/1.1\r\n\r\n"]))


@thorough
@given(heads())
def test_request_head_that_matches_means_the_same_to_others(stream: bytes) -> None:
    check_head(stream)


@thorough
@given(st.sampled_from(list(HEADS.values())), places, st.integers(0, 255))
def test_request_head_with_one_changed_byte_means_the_same_to_others(data: bytes, at: int, byte: int) -> None:
    changed = bytearray(data)
    changed[at % len(data)] = byte
    check_head(bytes(changed))


@examples(100)
@given(heads(), st.lists(st.integers(1, 40), min_size=1, max_size=20))
@example(of_size(MOST_BYTES), [1])
@example(of_size(MOST_BYTES + 1), [4095, 1])
@example(b"GET /" + b"x" * 3000, [1])
def test_request_head_in_pieces_has_the_verdict_of_the_whole(stream: bytes, sizes: list[int]) -> None:
    check_pieces(read(stream), stream, sizes)
