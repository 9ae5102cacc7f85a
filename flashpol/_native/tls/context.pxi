# How a certificate is chosen for a client, and how the contexts of OpenSSL are made.
#
# Each name of a certificate has a context of OpenSSL, with at most one certificate of each kind of key, so that OpenSSL
# chooses between ECDSA and RSA by what the client can. Names with the same certificates have one context.

from libc.stdint cimport uint8_t, uint32_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcmp, memcpy, strlen

from flashpol._native.tls.codec cimport Tls
from flashpol._native.tls.context cimport CertificateName, Context, MAX_NAME, Names
from flashpol._native.tls.openssl cimport (
    BIO, BIO_free, BIO_new_mem_buf, ERR_clear_error, ERR_peek_last_error, ERR_reason_error_string, EVP_PKEY,
    EVP_PKEY_free, EVP_PKEY_get_base_id, PEM_read_bio_PrivateKey, PEM_read_bio_X509, SSL, SSL_AD_UNRECOGNIZED_NAME,
    SSL_CTX, SSL_CTX_add1_chain_cert, SSL_CTX_check_private_key, SSL_CTX_clear_options, SSL_CTX_free, SSL_CTX_new,
    SSL_CTX_set1_groups_list, SSL_CTX_set_alpn_select_cb, SSL_CTX_set_cipher_list, SSL_CTX_set_ciphersuites,
    SSL_CTX_set_client_hello_cb, SSL_CTX_set_max_proto_version, SSL_CTX_set_min_proto_version, SSL_CTX_set_mode,
    SSL_CTX_set_msg_callback, SSL_CTX_set_num_tickets, SSL_CTX_set_options, SSL_CTX_set_session_cache_mode,
    SSL_CTX_set_session_id_context, SSL_CTX_set_tlsext_servername_arg, SSL_CTX_set_tlsext_servername_callback,
    SSL_CTX_set_tlsext_ticket_keys, SSL_CTX_use_certificate, SSL_CTX_use_PrivateKey, SSL_get_servername,
    SSL_MODE_RELEASE_BUFFERS, SSL_OP_ALL, SSL_OP_CIPHER_SERVER_PREFERENCE, SSL_OP_DONT_INSERT_EMPTY_FRAGMENTS,
    SSL_OP_NO_COMPRESSION, SSL_OP_NO_RENEGOTIATION, SSL_OP_NO_TICKET, SSL_OP_PRIORITIZE_CHACHA, SSL_SESS_CACHE_OFF,
    SSL_set_SSL_CTX, SSL_TLSEXT_ERR_ALERT_FATAL, SSL_TLSEXT_ERR_NOACK, SSL_TLSEXT_ERR_OK, TLS1_2_VERSION,
    TLS1_3_VERSION, TLS1_VERSION, TLS_server_method, TLSEXT_NAMETYPE_host_name, X509, X509_free, X509_get0_pubkey,
)

# Suites of TLS 1.2 and below by profile, in OpenSSL's language, the preferred first: forward secrecy and AEAD; the same
# and CBC; also what Flash Player and AIR offer, which is RSA key exchange and CBC only, with SHA-1 in TLS 1.0.
cdef bytes MODERN = (
    b"ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    b"ECDHE-RSA-AES256-GCM-SHA384:ECDHE+CHACHA20"
)
cdef dict SUITES = {
    "modern": MODERN,
    "compatible": MODERN + b":ECDHE+AES128:ECDHE+AES256",
    "flash": MODERN + b":ECDHE+AES128:ECDHE+AES256:RSA+AESGCM:RSA+AES:@SECLEVEL=0",
}
PROFILES = tuple(SUITES)
TICKET_KEY_BYTES = 80
cdef bytes SUITES_1_3 = b"TLS_AES_128_GCM_SHA256:TLS_AES_256_GCM_SHA384:TLS_CHACHA20_POLY1305_SHA256"
# The client chooses among these. With OpenSSL 3.0 a key share of P-384 costs five times as much as one of X25519, and
# every client has one of these two.
cdef bytes GROUPS = b"X25519:P-256"


# ------------------------------------------------------------------------------------------------------ by the name

cdef inline int compare(const CertificateName* row, const char* text, uint32_t size) noexcept nogil:
    cdef int order = memcmp(row.text, text, min(<uint32_t>row.size, size))
    return order if order else <int>row.size - <int>size


cdef SSL_CTX* find_name(const Names* names, const char* text, uint32_t size) noexcept nogil:
    cdef uint32_t low = 0, high = names.count, middle
    cdef int order
    while low < high:
        middle = (low + high) // 2
        order = compare(&names.rows[middle], text, size)
        if order == 0:
            return names.rows[middle].context
        if order < 0:
            low = middle + 1
        else:
            high = middle
    return NULL


cdef SSL_CTX* context_of(const Context* context, const char* name, uint32_t size) noexcept nogil:
    """The context for a name in lower case: an exact match, else one level of "*". NULL: no certificate has it."""
    cdef SSL_CTX* found = find_name(&context.exact, name, size)
    cdef uint32_t i = 0
    if found != NULL:
        return found
    while i < size and name[i] != b".":
        i += 1
    return find_name(&context.wildcard, name + i, size - i) if 0 < i < size else NULL


cdef inline bint is_address(const char* name, uint32_t size) noexcept nogil:
    """An address in the place of a name, which RFC 6066 section 3 does not allow: it counts as no name."""
    cdef uint32_t i
    cdef bint digits = True
    for i in range(size):
        if name[i] == b":":
            return True
        digits = digits and (b"0" <= name[i] <= b"9" or name[i] == b".")
    return digits


cdef int on_server_name(SSL* ssl, int* alert, void* argument) noexcept nogil:
    """Choose the certificates for the name that the client asks for."""
    cdef const Context* context = <const Context*>argument
    cdef const char* given = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name)
    cdef Tls* tls = codec_of(ssl)
    cdef char[MAX_NAME + 1] name
    cdef size_t i, size
    cdef SSL_CTX* found = NULL
    if given == NULL:
        return SSL_TLSEXT_ERR_NOACK
    size = strlen(given)
    if size and given[size - 1] == b".":
        size -= 1
    if size <= MAX_NAME:
        for i in range(size):
            name[i] = given[i] + 32 if b"A" <= given[i] <= b"Z" else given[i]
        if is_address(name, <uint32_t>size):
            return SSL_TLSEXT_ERR_NOACK
        found = context_of(context, name, <uint32_t>size)
    if found != NULL:
        SSL_set_SSL_CTX(ssl, found)
        return SSL_TLSEXT_ERR_OK
    tls.codec.unknown_name = True
    if context.strict_sni:
        tls.refused_name = True
        alert[0] = SSL_AD_UNRECOGNIZED_NAME
        return SSL_TLSEXT_ERR_ALERT_FATAL
    return SSL_TLSEXT_ERR_NOACK


cdef int on_protocols(
    SSL* ssl, const unsigned char** chosen, unsigned char* chosen_size, const unsigned char* offered,
    unsigned int size, void* argument,
) noexcept nogil:
    """ALPN: http/1.1, or nothing that flashpol speaks (RFC 7301). Each name has its length in front of it."""
    cdef unsigned int i = 0
    while i < size:
        if offered[i] == 8 and i + 9 <= size and memcmp(offered + i + 1, <const char*>b"http/1.1", 8) == 0:
            chosen[0] = offered + i + 1
            chosen_size[0] = 8
            return SSL_TLSEXT_ERR_OK
        i += 1 + <unsigned int>offered[i]
    return SSL_TLSEXT_ERR_ALERT_FATAL


# ----------------------------------------------------------------------------------------------------------- building

cdef str last_error():
    """What OpenSSL says of the last call that failed, in its own words."""
    cdef const char* reason = ERR_reason_error_string(ERR_peek_last_error())
    return "unknown error" if reason == NULL else (<bytes>reason).decode("ascii", "replace")


cdef int no_passphrase(char* buffer, int size, int writing, void* argument) noexcept nogil:
    """OpenSSL would ask the terminal for one."""
    return -1


cdef int add_chain(SSL_CTX* context, bytes chain) except -1:
    """The certificate of the server, and those that follow it."""
    cdef BIO* bio = BIO_new_mem_buf(<const char*>chain, <int>len(chain))
    cdef X509* certificate = NULL
    cdef int number = 0
    cdef bint done = bio != NULL
    ERR_clear_error()
    while done:
        certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL)
        if certificate == NULL:
            break
        if number == 0:
            done = SSL_CTX_use_certificate(context, certificate) == 1
        else:
            done = SSL_CTX_add1_chain_cert(context, certificate) == 1
        X509_free(certificate)
        number += 1
    BIO_free(bio)
    if not done or number == 0:
        raise TlsError(f"the certificate cannot be used: {last_error()}")
    ERR_clear_error()
    return 0


cdef int add_key(SSL_CTX* context, bytes key) except -1:
    cdef BIO* bio = BIO_new_mem_buf(<const char*>key, <int>len(key))
    cdef EVP_PKEY* parsed = NULL
    cdef bint done = False
    ERR_clear_error()
    if bio != NULL:
        parsed = PEM_read_bio_PrivateKey(bio, NULL, no_passphrase, NULL)
        done = parsed != NULL and SSL_CTX_use_PrivateKey(context, parsed) == 1
    EVP_PKEY_free(parsed)
    BIO_free(bio)
    if not done:
        raise TlsError(f"the key cannot be used: {last_error()}")
    return 0


cdef int kind_of_key(bytes chain) except -1:
    """A number for each kind of key: certificates of different kinds can be in one context."""
    cdef BIO* bio = BIO_new_mem_buf(<const char*>chain, <int>len(chain))
    cdef X509* certificate = PEM_read_bio_X509(bio, NULL, NULL, NULL) if bio != NULL else NULL
    cdef int kind = -1
    if certificate != NULL:
        kind = EVP_PKEY_get_base_id(X509_get0_pubkey(certificate))
    X509_free(certificate)
    BIO_free(bio)
    if kind < 0:
        raise TlsError(f"this is no certificate: {last_error()}")
    return kind
