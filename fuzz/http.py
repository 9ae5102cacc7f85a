"""The target of the recogniser of heads: bytes in pieces and whole, compared with a definition and two libraries."""

from flashpol._fastpath import RequestHead, Verdict
from testkit.http_heads import TRIED, by_definition, by_h11, by_httptools

CUTS = 8
STATUSES = (400, 411, 414, 417, 431, 501, 505)
MOST_BYTES = 8192


def check_head(stream: bytes) -> RequestHead:
    """Read a head. Whatever is accepted, the others accept with the same meaning; the definition accepts no more."""
    head = RequestHead()
    verdict = head.feed(stream)
    end = stream.find(b"\r\n\r\n") + 4
    defined = by_definition(stream[:end])
    if verdict is not Verdict.MATCH:
        assert defined is None, "refused, or incomplete, by the recogniser alone"
        assert (head.status in STATUSES) == (verdict is Verdict.OTHER), "a status without its verdict"
        assert head.consumed == (0 if verdict is Verdict.OTHER else len(stream)), "a part of the bytes was left"
        return head
    assert head.status is None
    assert head.consumed == end, "the length of the head"
    assert defined is not None, "accepted against the definition"
    meaning = (head.method, head.target, head.minor, head.fields, head.body_size)
    assert meaning == defined, "another meaning than the definition's"
    body_size = head.body_size if head.body_size < TRIED else -1
    for library in (by_h11, by_httptools):
        assert library(stream[:end]) == (*meaning[:4], body_size), f"another meaning than {library.__name__}"
    check_parts(head)
    return head


def check_parts(head: RequestHead) -> None:
    """The path is a part of the target, and fields are found by their names."""
    if head.path == b"":
        assert head.target == b"*" or head.method == b"CONNECT"
    else:
        plain = head.target.partition(b"?")[0]
        assert head.path == (b"/" + b"/".join(plain.split(b"/")[3:]) if plain[:1] != b"/" else plain), "the path"
    names = [name.lower() for name, _ in head.fields]
    for name in {b"host", b"x", *names}:
        assert head.count(name) == names.count(name)
        assert head.find(name) == (head.fields[names.index(name)][1] if name in names else None)


def check_pieces(head: RequestHead, stream: bytes, sizes: list[int]) -> None:
    """Pieces of these sizes, over and over, lead to the state that the whole has led to."""
    pieces, at, number = RequestHead(), 0, 0
    while at < len(stream):
        size = max(1, sizes[number % len(sizes)])
        verdict = pieces.feed(stream[at : at + size])
        at, number = at + size, number + 1
        assert verdict == RequestHead().feed(stream[:at]), "pieces have another verdict, or later"
        if verdict is not Verdict.MORE:
            break
    assert state(pieces) == state(head), "pieces have another meaning"


def state(head: RequestHead) -> tuple[object, ...]:
    return (
        head.consumed, head.status, head.method, head.target, head.path, head.minor, head.fields, head.body_size,
        head.expects_continue,
    )  # fmt: skip


def http_head(data: bytes) -> None:
    """data: the sizes of pieces, the stream."""
    if len(data) > CUTS:
        stream = data[CUTS:]
        check_pieces(check_head(stream), stream, [1 + byte % 32 for byte in data[:CUTS]])
