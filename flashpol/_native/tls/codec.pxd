# The TLS codec of one connection.

from libc.stdint cimport uint8_t, uint32_t

from flashpol._native.codecs.codec cimport Codec, Output
from flashpol._native.tls.context cimport Context
from flashpol._native.tls.openssl cimport SSL

cdef enum:
    RECORD_HEAD = 5             # RFC 8446 section 5.1: type, version, length
    MAX_RECORD = 16384 + 2048   # what may follow it (RFC 5246 section 6.2.3)
    MAX_INPUT = 32768           # handshake bytes that wait for a turn
    MAX_HANDSHAKE = 131072      # handshake bytes of a client in all; a chain of client certificates is not asked for
    MAX_EMPTY = 32              # records in a row without application data, after the handshake

cdef struct Tls:
    Codec codec
    Context* context
    SSL* ssl                    # NULL: the hello is not complete, or its turn has not come
    char* input                 # handshake bytes that wait for a turn; NULL: none
    uint32_t input_size
    uint32_t received           # handshake bytes so far
    const char* view            # wire bytes that OpenSSL reads during one call
    uint32_t view_size
    Output* written             # where OpenSSL writes to during one call
    uint32_t empty              # records in a row without application data
    uint8_t old_client          # it offers no suite of TLS 1.3, and none with AEAD and forward secrecy
    uint8_t refused_name        # tls_strict_sni refuses the name
    uint8_t failed              # OpenSSL must not be called again
