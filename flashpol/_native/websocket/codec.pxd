# The WebSocket codec of one connection (RFC 6455).

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t, uint64_t

from flashpol._native.codecs.codec cimport Codec
from flashpol._native.websocket.deflate cimport Compressor, z_stream

cdef enum:
    FRAME_HEAD = 14             # the longest head of a client's frame
    MAX_CONTROL = 125           # payload of a control frame

cdef enum Opcode:
    OP_CONTINUATION = 0
    OP_TEXT = 1
    OP_BINARY = 2
    OP_CLOSE = 8
    OP_PING = 9
    OP_PONG = 10

cdef enum:                      # bits of a frame's first two bytes
    BIT_FIN = 0x80
    BIT_COMPRESSED = 0x40
    BITS_RESERVED = 0x30
    BITS_OPCODE = 0x0F
    BIT_CONTROL = 0x08
    BIT_MASKED = 0x80
    BITS_SIZE = 0x7F

cdef enum UpgradeResult:        # _websocket.pyx has the names
    U_ACCEPTED = 0
    U_ORIGIN                    # the policy or the list does not allow the page's origin
    U_NO_ORIGIN                 # the request has none
    U_NO_UPGRADE                # the request asks for no WebSocket: a proxy has dropped the fields, or it is a browser
    U_MALFORMED
    U_UPSTREAM                  # the upstream could not be reached
    U_CAPACITY                  # a limit
    RESULT_COUNT

cdef enum:                      # `closes`: which side said first that it closes
    BY_CLIENT = 0
    BY_SERVER = 1

# Numbers of the codes that are counted, in order; the last is all others. _websocket.pyx has the names.
cdef enum CloseCode:
    CC_NORMAL = 1000
    CC_GOING_AWAY = 1001
    CC_PROTOCOL = 1002
    CC_UNSUPPORTED = 1003
    CC_NONE = 1005              # Close without a code
    CC_ABNORMAL = 1006          # the connection ended without Close
    CC_INVALID = 1007
    CC_POLICY = 1008
    CC_TOO_BIG = 1009
    CC_INTERNAL = 1011
    CC_RESTART = 1012
    CC_TRY_LATER = 1013

cdef enum:
    CODE_COUNT = 13

# One block for each worker and WebSocket path of a listener, written by that worker only.
cdef struct WebSocketCounters:
    uint64_t upgrades[RESULT_COUNT]
    uint64_t closes[2][CODE_COUNT]
    uint64_t ping_timeouts
    uint64_t deflated[2]        # bytes of compressed messages, from and to clients, as they are on the wire
    uint64_t inflated[2]        # and what they are without compression
    int64_t open                # a gauge

# What the codecs of one path share.
cdef struct PathSettings:
    WebSocketCounters* counters
    uint64_t max_message        # bytes
    uint8_t text                # text messages are accepted, as bytes
    Compressor* compressor      # NULL: none of its connections compresses; owned by the Path, as the next
    z_stream* decompressor      # for messages that come whole; NULL: it was left to a connection

cdef struct WebSocket:
    Codec codec
    PathSettings* path
    char* opening               # the reply with status 101, and what the client sent behind its request; NULL: sent
    uint32_t reply_size
    uint32_t opening_size
    uint64_t left               # bytes of the frame's payload that are still to come
    uint64_t message            # bytes of the message so far
    char* control               # MAX_CONTROL bytes: the payload of a control frame, so far; NULL: none was needed
    char* pong                  # payload of a ping that is to be replied to when the client reads on; NULL: none
    uint8_t pong_size
    uint8_t control_size
    uint8_t[FRAME_HEAD] head    # of the next frame, so far
    uint8_t head_size
    uint8_t[4] mask
    uint8_t phase               # of the mask: which of its bytes is next
    uint8_t frame               # the first byte of the frame whose payload is being read
    uint8_t message_opcode      # of the message that is not complete; 0: none
    uint8_t utf8                # state of the decoder
    uint8_t compresses          # the handshake agreed on permessage-deflate
    uint8_t compressed          # the message that is not complete is compressed
    uint8_t in_tail             # all of it was decompressed but the tail that is not sent,
    uint8_t tail                # of which so many bytes were
    z_stream* decompressor      # of a compressed message that is not complete; NULL: there is none
    char* input                 # wire bytes that `plain` had no room for, see CODEC_WORK; NULL: none
    uint32_t input_size
    uint8_t failed
    uint8_t ends_below          # the codec below has ended
    uint8_t closed_by
    uint16_t close_code         # 0: neither side has sent Close
