"""What Python sees of the WebSocket codec. The head of _websocket.pyx explains how it works."""

from typing import Final, Self, final

from typing_extensions import Buffer

from flashpol._fastpath import PreparedCodec

RESULTS: Final[tuple[str, ...]]
"""What came of a request for a WebSocket, in the order of `upgrades` in a counter block."""

CLOSE_CODES: Final[tuple[str, ...]]
"""Codes of Close, in the order of each half of `closes` in a counter block. "1005": Close without a code; "1006": the
connection ended without Close; "other": all that are not in the list."""

SIDES: Final[tuple[str, ...]]
"""The halves of `closes`: which side said first that it closes."""

BLOCK_SIZE: Final[int]
"""Bytes of one counter block, a multiple of the cache line."""
COMPRESSES: Final[bool]
"""The build has zlib."""

LAYOUT: Final[dict[str, tuple[int, int]]]
"""Field of a counter block -> (offset in bytes, number of 64-bit words)."""

@final
class Path:
    """What the WebSockets of one path of a listener share.

    block: writable memory of BLOCK_SIZE bytes, 8-byte aligned, for the counters. max_message: bytes of a message of the
    client at most. text: text messages are accepted, as bytes. compression: its connections may compress. Raises
    ValueError for a block that does not fit, MemoryError also for compression in a build without zlib.
    """

    def __new__(cls, block: Buffer, *, max_message: int, text: bool = False, compression: bool = False) -> Self: ...
    def prepare(self, reply: bytes, rest: bytes, *, compresses: bool = False) -> PreparedCodec:
        """The codec of a connection. reply: the client gets it when the upstream is reached; rest: what it has sent
        behind its request, at most 32 KB, else ValueError. compresses: the reply agrees on permessage-deflate."""

    def count(self, result: str) -> None:
        """Count a request that became no WebSocket, as one of RESULTS. Raises ValueError for another word."""

@final
class WebSocketCodec:
    """The codec of one connection without TLS, for tests: the pump calls it in C.

    `decode` and `work` return ("ok", "work", "end" or "error", plain bytes, bytes that it sends the client by itself).
    """

    def __new__(cls, path: Path, *, reply: bytes = b"", rest: bytes = b"", compresses: bool = False) -> Self: ...
    def decode(self, wire: bytes) -> tuple[str, bytes, bytes]:
        """Take at most 16 KB, else ValueError. Call `work` before."""

    def work(self) -> tuple[str, bytes, bytes]:
        """The upstream is reached: `reply` is sent, and `rest` decoded."""

    def encode(self, plain: bytes) -> bytes | None:
        """One binary message, nothing after the end; before `work` the bytes as they are."""

    def finish(self, why: str = "done") -> bytes:
        """What says that nothing more will be sent, once. why: "done", "failed", "idle", "stop", "replaced",
        "evicted" or "ping"; KeyError for another word."""

    def ping(self) -> bytes: ...
    def resume(self) -> bytes:
        """What was kept while the codec was `blocked`."""

    @property
    def ended(self) -> bool:
        """The client has sent Close."""

    @property
    def finished(self) -> bool:
        """Close was sent to the client."""

    @property
    def blocked(self) -> bool:
        """The client takes nothing at present: only the latest ping gets its pong, from `resume`."""

    @blocked.setter
    def blocked(self, value: bool) -> None: ...
