# What the codecs of one listener share: its contexts, and its certificates by name.

from libc.stdint cimport uint8_t, uint32_t

from flashpol._native.codecs.codec cimport Factory
from flashpol._native.tls.openssl cimport SSL_CTX

cdef enum:
    MAX_NAME = 253              # characters of a host name

# A name of a certificate, in lower case; that of "*.example.com" is ".example.com".
cdef struct CertificateName:
    char text[MAX_NAME + 1]
    uint8_t size
    SSL_CTX* context            # with the certificates of this name, at most one of each kind of key

cdef struct Names:
    CertificateName* rows       # sorted by their text
    uint32_t count

cdef struct Context:
    SSL_CTX* first              # of clients that name no host, or one that no certificate has
    Names exact
    Names wildcard
    uint8_t strict_sni          # refuse names that no certificate has
