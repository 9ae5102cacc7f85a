# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: auto_pickle=False, autotestdict=False
"""TLS by OpenSSL: certificates, and the codec that ends TLS for the fast path and the pump."""

from flashpol._native.tls.openssl cimport OPENSSL_VERSION, OpenSSL_version, SSL_get_ex_new_index

LIBRARY = OpenSSL_version(OPENSSL_VERSION).decode("ascii")


class TlsError(Exception):
    """What is wrong with a certificate, a key, or a setting of TLS: one line."""


include "_native/tls/codec.pxi"
include "_native/tls/context.pxi"
include "_native/tls/certificate.pxi"
