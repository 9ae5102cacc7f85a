# The head of an HTTP/1 request: bytes in, verdict out. No socket, no clock and no allocation.
#
# Written after RFC 9112 (its sections are cited below) and RFC 9110. It is stricter than both, so
# that no two parsers can read what it accepts in two ways: whatever it accepts, h11 and llhttp accept with the same
# method, target, fields and length of the body. It knows nothing of paths.
#
# The caller keeps the bytes, from the first byte of the request on, and passes all of them each time. None is read
# twice. The verdict is the same however the bytes arrive:
#
#   V_MATCH   the head is complete: `size` bytes, its empty line included. What follows is the body or what comes next
#   V_MORE    more bytes are needed
#   V_OTHER   `error` says why. Bytes that cannot belong to a head are refused when they are read; a host, a length and
#             the end of a field when their last byte is. A head that is well formed and asks for what we do not offer
#             (HE_LENGTH_REQUIRED, HE_CODING, HE_EXPECTATION) is refused at its end, so that HE_MALFORMED comes first
#
# Decisions, where the RFCs leave room or others are lenient:
#
#   line ends       CR LF alone; no empty line before the request line (2.2 lets a server skip some)
#   methods         those of RFC 9110 and PATCH: no other request comes here. PRI, of HTTP/2, is HE_VERSION
#   target          printable ASCII without "#". Browsers do send "|" and the like. Absolute form: http and https,
#                   without user information; "*" for OPTIONS alone, authority form for CONNECT alone
#   HTTP/0.9        a request line without a version is HE_VERSION
#   names           tokens; nothing between name and colon; no folded lines (5.2)
#   values          printable ASCII, SP, HTAB and obs-text, bytes 128 to 255
#   Host            one in HTTP/1.1, at most one in HTTP/1.0; a name of letters, digits and "-._~" or an address,
#                   and a port. RFC 3986 allows more, "," and "%" among it, which no name has. It may be empty
#   Content-Length  once, 1 to 18 digits and nothing else; not repeated, also not with equal values.
#                   None with CONNECT, which has no body
#   Transfer-Encoding   refused. In HTTP/1.0, and beside Content-Length, it is HE_MALFORMED (6.1)
#   Upgrade         not with a body: some parsers take it for the beginning of the other protocol
#   Expect          100-continue, which HTTP/1.0 has not: there it is ignored (RFC 9110, 10.1.1)

from libc.stdint cimport int64_t, uint8_t, uint16_t

cdef enum:
    HEAD_BYTES = 8192           # a head is at most so long, its empty line included
    TARGET_BYTES = 2048
    FIELD_COUNT = 100
    INET6_BYTES = 46            # an IPv6 address as text, and a NUL
    LENGTH_DIGITS = 18          # of Content-Length: fits in int64_t

cdef enum HeadError:            # and the status that says so
    HE_NONE = 0
    HE_MALFORMED                # 400
    HE_TARGET                   # 414: the target is longer than TARGET_BYTES
    HE_FIELDS                   # 431: the head is longer than HEAD_BYTES, or has more fields than FIELD_COUNT
    HE_VERSION                  # 505: neither HTTP/1.0 nor HTTP/1.1
    HE_LENGTH_REQUIRED          # 411: Transfer-Encoding: chunked
    HE_CODING                   # 501: another Transfer-Encoding
    HE_EXPECTATION              # 417: an expectation other than 100-continue

cdef enum HeadMethod:           # in the order of flashpol_methods
    HM_GET
    HM_POST
    HM_HEAD
    HM_OPTIONS
    HM_CONNECT
    HM_PUT
    HM_DELETE
    HM_TRACE
    HM_PATCH
    HM_PRI                      # never in a head that matches
    HEAD_METHODS

cdef enum TargetForm:           # section 3.2
    TF_ORIGIN
    TF_ABSOLUTE
    TF_AUTHORITY
    TF_ASTERISK

cdef enum HeadState:            # what the next byte belongs to
    HS_METHOD = 0
    HS_TARGET                   # its first byte
    HS_SCHEME
    HS_HOST                     # of absolute form
    HS_PATH
    HS_QUERY
    HS_AUTHORITY                # of CONNECT
    HS_ASTERISK                 # the space after it
    HS_VERSION                  # and CR LF
    HS_LINE                     # the first byte of a field, or the CR of the empty line
    HS_NAME
    HS_SPACE                    # before the value
    HS_VALUE
    HS_LINE_END                 # the LF of a field
    HS_END                      # the LF of the empty line

cdef enum HeadCoding:
    HC_NONE
    HC_CHUNKED
    HC_OTHER

# A part of the head's bytes.
cdef struct Span:
    uint16_t begin
    uint16_t size

cdef struct HeadField:
    Span name
    Span value                  # without the spaces and tabs around it

# Offsets into the bytes of the head, so the caller may move them. What the head says is set as soon as it was read.
cdef struct HeadParser:
    uint16_t at                 # bytes that were read
    uint16_t begin              # of what is being read: host, version, value
    uint8_t state               # a HeadState
    uint8_t coding              # a HeadCoding
    bint has_host
    bint has_length
    bint has_upgrade
    bint has_other_expectation

    uint16_t size               # bytes of the head, its empty line included, once it matched
    uint8_t error               # a HeadError
    uint8_t verb                # a HeadMethod
    uint8_t form                # a TargetForm
    uint8_t minor               # of the version: HTTP/1.0, HTTP/1.1
    uint8_t expects             # Expect: 100-continue
    int64_t body_size           # Content-Length; 0 if there is none
    Span method
    Span target
    Span path                   # of the target, without the query; see head_path
    uint16_t field_count
    HeadField fields[FIELD_COUNT]

# Which bytes may be where, and the methods with the space that ends them.
cdef enum ByteKind:
    BK_TOKEN = 1                # RFC 9110, 5.6.2
    BK_VALUE = 2
    BK_PATH = 4                 # a query has these and "?"
    BK_HOST = 8                 # a name, an address, and a port

cdef extern from *:
    """
    #include <stdint.h>
    __attribute__((unused)) static const uint8_t flashpol_bytes[256] = {
        [0x09] = 2, [0x20] = 2,
        [0x21] = 7, [0x22] = 6, [0x23] = 3, [0x24 ... 0x27] = 7, /* ! " # $ % & ' */
        [0x28 ... 0x29] = 6, [0x2a ... 0x2b] = 7, [0x2c] = 6, [0x2d ... 0x2e] = 15,         /* ( ) * + , - . */
        [0x2f] = 6, [0x30 ... 0x39] = 15, [0x3a] = 14, [0x3b ... 0x3e] = 6,                 /* / 0-9 : ; < = > */
        [0x3f] = 2, [0x40] = 6, [0x41 ... 0x5a] = 15, [0x5b] = 14, [0x5c] = 6, [0x5d] = 14, /* ? @ A-Z [ \\ ] */
        [0x5e] = 7, [0x5f] = 15, [0x60] = 7, [0x61 ... 0x7a] = 15,                          /* ^ _ ` a-z */
        [0x7b] = 6, [0x7c] = 7, [0x7d] = 6, [0x7e] = 15,                                    /* { | } ~ */
        [0x80 ... 0xff] = 2,
    };
    __attribute__((unused)) static const struct flashpol_method { char text[8]; uint8_t size; } flashpol_methods[] = {
        {"GET ", 4}, {"POST ", 5}, {"HEAD ", 5}, {"OPTIONS ", 8}, {"CONNECT ", 8}, {"PUT ", 4}, {"DELETE ", 7},
        {"TRACE ", 6}, {"PATCH ", 6}, {"PRI ", 4},
    };
    """
    const uint8_t* BYTES "flashpol_bytes"
    cdef struct MethodRow "flashpol_method":
        const char* text
        uint8_t size
    const MethodRow* METHODS "flashpol_methods"
