# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: auto_pickle=False, autotestdict=False
"""WebSocket: the codec that turns frames into an upstream's bytes and back, for the pump.

The gateway judges the request and makes the reply; here is what follows the 101.
"""

from cython cimport final
from libc.stdint cimport uint32_t, uint64_t

from flashpol._fastpath cimport PreparedCodec
from flashpol._native.codecs.codec cimport (
    CE_DONE, CE_EVICTED, CE_FAILED, CE_IDLE, CE_PING, CE_REPLACED, CE_STOP, Codec, CODEC_GROWTH, CODEC_HEADROOM,
    CODEC_PLAIN, CodecEnd, Output,
)
from flashpol._native.websocket.deflate cimport HAS_ZLIB
from flashpol._native.websocket.codec cimport (
    CODE_COUNT, PathSettings, RESULT_COUNT, U_ACCEPTED, U_CAPACITY, U_MALFORMED, U_NO_ORIGIN, U_NO_UPGRADE, U_ORIGIN,
    U_UPSTREAM, WebSocketCounters,
)

include "_native/bindings/tables.pxi"
include "_native/bindings/codec_calls.pxi"
include "_native/websocket/frames.pxi"
include "_native/websocket/deflate.pxi"
include "_native/websocket/codec.pxi"

# Enum UpgradeResult has its names here and nowhere else.
RESULTS = numbered(RESULT_COUNT, {
    U_ACCEPTED: "accepted",
    U_ORIGIN: "origin",
    U_NO_ORIGIN: "no_origin",
    U_NO_UPGRADE: "no_upgrade",
    U_MALFORMED: "malformed",
    U_UPSTREAM: "upstream",
    U_CAPACITY: "capacity",
})
# The codes of Close, in the order of `number_of_code`; 1005 is Close without a code, 1006 an end without Close.
CLOSE_CODES = ("1000", "1001", "1002", "1003", "1005", "1006", "1007", "1008", "1009", "1011", "1012", "1013", "other")
SIDES = ("client", "server")
BLOCK_SIZE = (sizeof(WebSocketCounters) + 63) // 64 * 64    # whole cache lines: no two writers share one


cdef dict layout_of_counters():
    cdef WebSocketCounters block
    cdef char* begin = <char*>&block
    return laid_out(sizeof(WebSocketCounters), [
        ("upgrades", <char*>&block.upgrades - begin, sizeof(block.upgrades)),
        ("closes", <char*>&block.closes - begin, sizeof(block.closes)),
        ("ping_timeouts", <char*>&block.ping_timeouts - begin, sizeof(block.ping_timeouts)),
        ("deflated", <char*>&block.deflated - begin, sizeof(block.deflated)),
        ("inflated", <char*>&block.inflated - begin, sizeof(block.inflated)),
        ("open", <char*>&block.open - begin, sizeof(block.open)),
    ])


LAYOUT = layout_of_counters()
COMPRESSES = bool(HAS_ZLIB)                             # the build has zlib

cdef dict ENDS = {
    "done": CE_DONE, "failed": CE_FAILED, "idle": CE_IDLE, "stop": CE_STOP, "replaced": CE_REPLACED,
    "evicted": CE_EVICTED, "ping": CE_PING,
}


@final
cdef class Path:
    """What the connections of one WebSocket path share."""

    cdef PathSettings settings
    cdef unsigned char[::1] _block      # keeps alive what settings.counters points to

    def __cinit__(self, unsigned char[::1] block not None, *, uint64_t max_message, bint text=False,
                  bint compression=False):
        if block.shape[0] < <Py_ssize_t>sizeof(WebSocketCounters) or <size_t>&block[0] % sizeof(uint64_t) != 0:
            raise ValueError(f"a counter block is {sizeof(WebSocketCounters)} bytes, aligned to {sizeof(uint64_t)}")
        self._block = block
        self.settings.counters = <WebSocketCounters*>&block[0]
        self.settings.max_message = max_message
        self.settings.text = text
        if compression:
            self.settings.compressor = make_compressor()
            if self.settings.compressor == NULL:
                raise MemoryError

    def __dealloc__(self):
        free_compressor(self.settings.compressor)
        free_decompressor(self.settings.decompressor)

    def prepare(self, bytes reply not None, bytes rest not None, *, bint compresses=False):
        cdef PreparedCodec prepared = PreparedCodec.__new__(PreparedCodec)
        if len(rest) > CODEC_PLAIN:
            raise ValueError(f"at most {CODEC_PLAIN} bytes")
        prepared.codec = begin_websocket(
            &self.settings, compresses and self.settings.compressor != NULL, <const char*>reply, <uint32_t>len(reply),
            <const char*>rest, <uint32_t>len(rest),
        )
        if prepared.codec == NULL:
            raise MemoryError
        prepared.owner = self
        return prepared

    def count(self, str result not None):
        self.settings.counters.upgrades[<int>RESULTS.index(result)] += 1


@final
cdef class WebSocketCodec:
    """The codec of one connection without TLS, for tests: the pump calls it in C."""

    cdef PreparedCodec _prepared
    cdef Codec* _codec

    def __cinit__(self, Path path not None, *, bytes reply=b"", bytes rest=b"", bint compresses=False):
        self._prepared = path.prepare(reply, rest, compresses=compresses)
        self._codec = self._prepared.codec

    def decode(self, bytes wire not None):
        return call_codec(self._codec, wire)

    def work(self):
        return call_codec(self._codec, None)

    cdef bytes _write(self, int what, CodecEnd why, bytes plain):
        cdef Output wire
        cdef bytes copy = bytes(CODEC_HEADROOM) + plain
        cdef bytes room = bytes(len(plain) + CODEC_GROWTH)
        wire.data, wire.size, wire.room = <char*><const char*>room, 0, <uint32_t>len(room)
        if what == 0:
            if not self._codec.type.encode(
                    self._codec, <const char*>copy + CODEC_HEADROOM, <uint32_t>len(plain), &wire):
                return None
        elif what == 1:
            self._codec.type.finish(self._codec, why, &wire)
        elif what == 2:
            self._codec.type.ping(self._codec, &wire)
        else:
            self._codec.type.resume(self._codec, &wire)
        return wire.data[:wire.size]

    def encode(self, bytes plain not None):
        return self._write(0, CE_DONE, plain)

    def finish(self, str why not None="done"):
        return self._write(1, <CodecEnd><int>ENDS[why], b"")

    def ping(self):
        return self._write(2, CE_DONE, b"")

    def resume(self):
        return self._write(3, CE_DONE, b"")

    @property
    def ended(self):
        return bool(self._codec.ended)

    @property
    def finished(self):
        return bool(self._codec.finished)

    @property
    def blocked(self):
        return bool(self._codec.blocked)

    @blocked.setter
    def blocked(self, bint value):
        self._codec.blocked = value
