"""What clients of RTMPT say: requests of a session, whose id the client fills in, and requests that are none.

Hostile clients learn the id of their session from the reply to `/open` (native/tunnel.c), and fill it in where `ID` is,
and the number of the request where `NUMBER` is.
"""

from faults.hello import VARIED

ID, NUMBER = "I" * 16, "N" * 8  # as in native/tunnel.h
FORWARDED = "2001:db8::0000:0000"  # its digits are other ones for each attacker
GUESSED = "A1z00000000"  # of ids; its digits are too
BODY, BUFFER = 1 << 20, 1 << 18  # rtmpt_body, rtmpt_buffer
WINDOW = 16  # requests that wait for earlier ones
PIPELINED = 200


def request(path: str, body: bytes = b"\0", *, fields: str = "", size: int | None = None) -> bytes:
    """One request. size: what Content-Length says, if that is not the body's. fields: more, each with its CRLF."""
    return (
        f"POST {path} HTTP/1.1\r\nHost: media.example\r\nContent-Type: application/x-fcs\r\n{fields}"
        f"Connection: Keep-Alive\r\nContent-Length: {len(body) if size is None else size}\r\n\r\n"
    ).encode() + body


def of_session(kind: str, body: bytes = b"\0", **options: int) -> bytes:
    """A request of the session."""
    return request(f"/{kind}/{ID}/{NUMBER}", body, **options)  # type: ignore[arg-type]


def messages(hello: bytes, film: bytes) -> dict[str, bytes]:
    """By name, as `server.MESSAGES`. hello: what players say. film: what asks for one."""
    most = b"e" * (BODY - 1)
    guess = f"/idle/{GUESSED}00000/0"
    return {
        "rt-open": request("/open/1"),
        "rt-opens": request("/open/1") * PIPELINED,
        "rt-forwarded": request("/open/1", fields=f"X-Forwarded-For: {FORWARDED}\r\n"),
        "rt-ident": request("/fcs/ident2") * PIPELINED,
        "rt-idle": of_session("idle"),
        "rt-idles": of_session("idle") * PIPELINED,
        "rt-send": of_session("send", hello),
        "rt-sends": of_session("send", hello) * PIPELINED,
        "rt-large": of_session("send", most),
        "rt-slot": of_session("send", b"e" * (BUFFER // WINDOW - 1)),
        "rt-film": of_session("send", film),
        "rt-close": of_session("close"),
        "rt-guess": request(guess),
        "rt-guesses": request(guess) * PIPELINED,
        # What is not complete: of a head, and of bodies of a request that needs no session to be read.
        "rt-half-head": request(guess)[:60],
        "rt-half-body": request(guess, b"e" * 8_000, size=BODY),
        "rt-most-body": request(guess, most, size=BODY),
        "rt-other-path": request(f"/{VARIED}") * PIPELINED,
    }
