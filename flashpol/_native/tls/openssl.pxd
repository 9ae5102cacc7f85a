# What flashpol uses of OpenSSL 3.0 and later: https://docs.openssl.org/3.0/man3/

from libc.stdint cimport int64_t, uint8_t, uint64_t

cdef extern from "<openssl/ssl.h>" nogil:
    ctypedef struct SSL
    ctypedef struct SSL_CTX
    ctypedef struct SSL_METHOD
    ctypedef struct BIO
    ctypedef struct X509
    ctypedef struct EVP_PKEY
    const char* OpenSSL_version(int which)
    int OPENSSL_VERSION
