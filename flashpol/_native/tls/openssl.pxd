# What flashpol uses of OpenSSL 3.0 and later for connections: https://docs.openssl.org/3.0/man3/

from libc.stdint cimport uint64_t

cdef extern from "<openssl/ssl.h>" nogil:
    ctypedef struct SSL
    ctypedef struct SSL_CTX
    ctypedef struct SSL_METHOD
    ctypedef struct BIO
    ctypedef struct BIO_METHOD
    ctypedef struct X509
    ctypedef struct EVP_PKEY
    const char* OpenSSL_version(int which)
    int OPENSSL_VERSION

    # Contexts.
    const SSL_METHOD* TLS_server_method()
    SSL_CTX* SSL_CTX_new(const SSL_METHOD* method)
    void SSL_CTX_free(SSL_CTX* context)
    int SSL_CTX_set_min_proto_version(SSL_CTX* context, int version)
    int SSL_CTX_set_max_proto_version(SSL_CTX* context, int version)
    int SSL_CTX_set_cipher_list(SSL_CTX* context, const char* ciphers)
    int SSL_CTX_set_ciphersuites(SSL_CTX* context, const char* ciphers)
    uint64_t SSL_CTX_set_options(SSL_CTX* context, uint64_t options)
    uint64_t SSL_CTX_clear_options(SSL_CTX* context, uint64_t options)
    long SSL_CTX_set_mode(SSL_CTX* context, long mode)
    long SSL_CTX_set_session_cache_mode(SSL_CTX* context, long mode)
    int SSL_CTX_set1_groups_list(SSL_CTX* context, const char* groups)
    int SSL_CTX_check_private_key(const SSL_CTX* context)
    int SSL_CTX_set_num_tickets(SSL_CTX* context, size_t number)
    int SSL_CTX_get_tlsext_ticket_keys(SSL_CTX* context, void* keys, int size)
    int SSL_CTX_set_tlsext_ticket_keys(SSL_CTX* context, void* keys, int size)
    int SSL_CTX_use_certificate(SSL_CTX* context, X509* certificate)
    long SSL_CTX_add1_chain_cert(SSL_CTX* context, X509* certificate)
    int SSL_CTX_use_PrivateKey(SSL_CTX* context, EVP_PKEY* key)
    int SSL_CTX_set_session_id_context(SSL_CTX* context, const unsigned char* name, unsigned int size)
    int TLS1_VERSION, TLS1_1_VERSION, TLS1_2_VERSION, TLS1_3_VERSION
    uint64_t SSL_OP_NO_RENEGOTIATION, SSL_OP_NO_COMPRESSION, SSL_OP_CIPHER_SERVER_PREFERENCE, SSL_OP_NO_TICKET
    uint64_t SSL_OP_PRIORITIZE_CHACHA, SSL_OP_ALL, SSL_OP_DONT_INSERT_EMPTY_FRAGMENTS
    long SSL_MODE_RELEASE_BUFFERS, SSL_SESS_CACHE_OFF

    # Callbacks of a context.
    void SSL_CTX_set_tlsext_servername_callback(
        SSL_CTX* context, int (*callback)(SSL*, int*, void*) noexcept nogil)
    void SSL_CTX_set_tlsext_servername_arg(SSL_CTX* context, void* argument)
    void SSL_CTX_set_alpn_select_cb(
        SSL_CTX* context,
        int (*callback)(SSL*, const unsigned char**, unsigned char*, const unsigned char*, unsigned int,
                        void*) noexcept nogil,
        void* argument)
    void SSL_CTX_set_client_hello_cb(
        SSL_CTX* context, int (*callback)(SSL*, int*, void*) noexcept nogil, void* argument)
    void SSL_CTX_set_msg_callback(
        SSL_CTX* context,
        void (*callback)(int, int, int, const void*, size_t, SSL*, void*) noexcept nogil)
    int SSL_TLSEXT_ERR_OK, SSL_TLSEXT_ERR_ALERT_FATAL, SSL_TLSEXT_ERR_NOACK, SSL_CLIENT_HELLO_SUCCESS
    int SSL_AD_UNRECOGNIZED_NAME, TLSEXT_NAMETYPE_host_name, SSL3_RT_HEADER, SSL3_RT_HANDSHAKE

    # Connections.
    SSL* SSL_new(SSL_CTX* context)
    void SSL_free(SSL* ssl)
    SSL_CTX* SSL_set_SSL_CTX(SSL* ssl, SSL_CTX* context)
    void SSL_set_bio(SSL* ssl, BIO* reads, BIO* writes)
    void SSL_set_accept_state(SSL* ssl)
    int SSL_get_ex_new_index(long argument, void* pointer, void* make, void* copy, void* release)
    int SSL_set_ex_data(SSL* ssl, int index, void* data)
    void* SSL_get_ex_data(const SSL* ssl, int index)
    int SSL_do_handshake(SSL* ssl)
    int SSL_read(SSL* ssl, void* data, int size)
    int SSL_has_pending(const SSL* ssl)
    int SSL_write(SSL* ssl, const void* data, int size)
    int SSL_shutdown(SSL* ssl)
    int SSL_get_error(const SSL* ssl, int result)
    int SSL_version(const SSL* ssl)
    int SSL_session_reused(const SSL* ssl)
    const char* SSL_get_servername(const SSL* ssl, int kind)
    const char* SSL_get_version(const SSL* ssl)
    const char* SSL_get_cipher_name(const SSL* ssl)
    size_t SSL_client_hello_get0_ciphers(SSL* ssl, const unsigned char** ciphers)
    int SSL_ERROR_WANT_READ, SSL_ERROR_ZERO_RETURN
    int SSL_R_NO_SHARED_CIPHER, SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_VERSION_TOO_LOW, SSL_R_VERSION_TOO_HIGH
    int SSL_R_WRONG_VERSION_NUMBER, SSL_R_WRONG_SSL_VERSION, SSL_R_UNKNOWN_PROTOCOL, SSL_R_NO_APPLICATION_PROTOCOL
    int SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, SSL_R_TLSV1_ALERT_UNKNOWN_CA
    int SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, SSL_R_NO_SUITABLE_KEY_SHARE

cdef extern from "<openssl/bio.h>" nogil:
    int BIO_TYPE_SOURCE_SINK, BIO_CTRL_FLUSH
    int BIO_get_new_index()
    BIO_METHOD* BIO_meth_new(int kind, const char* name)
    int BIO_meth_set_read(BIO_METHOD* method, int (*read)(BIO*, char*, int) noexcept nogil)
    int BIO_meth_set_write(BIO_METHOD* method, int (*write)(BIO*, const char*, int) noexcept nogil)
    int BIO_meth_set_ctrl(BIO_METHOD* method, long (*ctrl)(BIO*, int, long, void*) noexcept nogil)
    BIO* BIO_new(const BIO_METHOD* method)
    BIO* BIO_new_mem_buf(const void* data, int size)
    int BIO_free(BIO* bio)
    void BIO_set_data(BIO* bio, void* data)
    void* BIO_get_data(BIO* bio)
    void BIO_set_init(BIO* bio, int init)
    void BIO_set_retry_read(BIO* bio)
    void BIO_set_retry_write(BIO* bio)
    void BIO_clear_retry_flags(BIO* bio)

cdef extern from "<openssl/pem.h>" nogil:
    X509* PEM_read_bio_X509(BIO* bio, X509** out, void* callback, void* argument)
    EVP_PKEY* PEM_read_bio_PrivateKey(BIO* bio, EVP_PKEY** out, int (*callback)(char*, int, int, void*) noexcept nogil,
                                      void* argument)

cdef extern from "<openssl/x509.h>" nogil:
    void X509_free(X509* certificate)
    EVP_PKEY* X509_get0_pubkey(const X509* certificate)

cdef extern from "<openssl/evp.h>" nogil:
    void EVP_PKEY_free(EVP_PKEY* key)
    int EVP_PKEY_get_base_id(const EVP_PKEY* key)

cdef extern from "<openssl/err.h>" nogil:
    void ERR_clear_error()
    unsigned long ERR_get_error()
    unsigned long ERR_peek_error()
    unsigned long ERR_peek_last_error()
    int ERR_GET_REASON(unsigned long error)
    int ERR_GET_LIB(unsigned long error)
    const char* ERR_reason_error_string(unsigned long error)
    int ERR_LIB_SSL
