# The TLS codec of one connection.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

from flashpol._native.codecs.codec cimport Codec, Output
from flashpol._native.tls.context cimport Context
from flashpol._native.tls.openssl cimport SSL

cdef enum:
    RECORD_HEAD = 5             # RFC 8446 section 5.1: type, version, length
    MESSAGE_HEAD = 4            # RFC 8446 section 4: type, length
    HANDSHAKE_RECORD = 22
    CLIENT_HELLO = 1
    MAX_HELLO = 8192            # bytes of a hello; with a key share of ML-KEM it has about 2,000
    MAX_INPUT = 12288           # handshake bytes that wait for a turn
    MAX_HANDSHAKE = 32768       # handshake bytes of a client in all; client certificates are not asked for
    MAX_EMPTY = 32              # records in a row without application data, after the handshake
    # Handshake messages after the handshake: KeyUpdate, which costs 30 us, and attempts to renegotiate. A client needs
    # a KeyUpdate after 2^24 records. So many, and one more for each MB that it sends.
    MAX_MESSAGES = 8

cdef struct Tls:
    Codec codec
    Context* context
    SSL* ssl                    # NULL: the hello is not complete, or its turn has not come
    char* input                 # handshake bytes that wait for a turn; NULL: none
    uint32_t input_size
    uint32_t received           # handshake bytes so far
    uint32_t next_record        # of `input`, before the hello is complete: where the next record begins
    uint32_t hello_size         # and how many bytes of the hello the records before it have
    const char* view            # wire bytes that OpenSSL reads during one call
    uint32_t view_size
    Output* written             # where OpenSSL writes to during one call
    uint32_t empty              # records in a row without application data
    uint32_t messages           # handshake messages after the handshake
    uint64_t decoded            # bytes of application data
    uint8_t flooding            # too many of either
    uint8_t old_client          # it offers no suite of TLS 1.3, and none with AEAD and forward secrecy
    uint8_t refused_name        # tls_strict_sni refuses the name
    uint8_t failed              # OpenSSL must not be called again
