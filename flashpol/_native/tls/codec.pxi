# The codec: OpenSSL between bytes in memory.
#
# OpenSSL reads from a view of the caller's buffer and writes into the caller's Output, through a BIO that has neither
# memory nor a socket. So OpenSSL never waits for a socket, and an idle connection has no buffer. Its error queue is one
# for each thread: it is cleared before every call, or the error of one connection would be found by another.

from libc.stdint cimport uint8_t, uint32_t, uint64_t
from libc.stdlib cimport calloc, free, realloc
from libc.string cimport memcpy

from flashpol._native.codecs.codec cimport (
    Codec, CODEC_END, CODEC_ERROR, CODEC_OK, CODEC_WORK, CodecEnd, CodecResult, CodecType, Factory, HF_ALERT, HF_ALPN,
    HF_CAPACITY, HF_CERTIFICATE, HF_CIPHER, HF_CLOSED, HF_FLOOD, HF_MALFORMED, HF_NAME, HF_NONE, HF_OLD_CLIENT,
    HF_VERSION, Output, VERSION_TLS_1_0, VERSION_TLS_1_1, VERSION_TLS_1_2, VERSION_TLS_1_3,
)
from flashpol._native.tls.codec cimport (
    CLIENT_HELLO, HANDSHAKE_RECORD, MAX_EMPTY, MAX_HANDSHAKE, MAX_HELLO, MAX_INPUT, MAX_MESSAGES, MESSAGE_HEAD,
    RECORD_HEAD, Tls,
)
from flashpol._native.tls.context cimport Context
from flashpol._native.tls.openssl cimport (
    BIO, BIO_clear_retry_flags, BIO_CTRL_FLUSH, BIO_get_data, BIO_get_new_index, BIO_meth_new, BIO_meth_set_ctrl,
    BIO_meth_set_read, BIO_meth_set_write, BIO_METHOD, BIO_new, BIO_set_data, BIO_set_init, BIO_set_retry_read,
    BIO_set_retry_write, BIO_TYPE_SOURCE_SINK, ERR_clear_error, ERR_GET_LIB, ERR_GET_REASON, ERR_LIB_SSL,
    ERR_peek_error, SSL, SSL3_RT_HANDSHAKE, SSL3_RT_HEADER, SSL_client_hello_get0_ciphers, SSL_CLIENT_HELLO_SUCCESS,
    SSL_do_handshake, SSL_ERROR_WANT_READ, SSL_ERROR_ZERO_RETURN, SSL_free, SSL_get_cipher_name, SSL_get_error,
    SSL_get_ex_data, SSL_get_servername, SSL_has_pending, SSL_new, SSL_R_NO_APPLICATION_PROTOCOL,
    SSL_R_NO_SHARED_CIPHER, SSL_R_NO_SUITABLE_KEY_SHARE, SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM,
    SSL_R_SSLV3_ALERT_BAD_CERTIFICATE,
    SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, SSL_R_TLSV1_ALERT_UNKNOWN_CA, SSL_R_UNKNOWN_PROTOCOL,
    SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_VERSION_TOO_HIGH, SSL_R_VERSION_TOO_LOW, SSL_R_WRONG_SSL_VERSION,
    SSL_R_WRONG_VERSION_NUMBER, SSL_read, SSL_session_reused, SSL_set_accept_state, SSL_set_bio, SSL_set_ex_data,
    SSL_shutdown, SSL_version, SSL_write, TLS1_1_VERSION, TLS1_2_VERSION, TLS1_3_VERSION, TLSEXT_NAMETYPE_host_name,
)

cdef enum:
    ALERT_REASONS = 1000        # an alert of the client is this reason and its number
    ALERT_COUNT = 256


# ------------------------------------------------------------------------------------------------------------------ BIO

cdef BIO_METHOD* view_method = NULL
cdef int codec_index = -1               # of the Tls in the extra data of an SSL


cdef int read_view(BIO* bio, char* data, int size) noexcept nogil:
    cdef Tls* tls = <Tls*>BIO_get_data(bio)
    cdef uint32_t n = min(<uint32_t>size, tls.view_size)
    BIO_clear_retry_flags(bio)
    if n == 0:
        BIO_set_retry_read(bio)
        return -1
    memcpy(data, tls.view, n)
    tls.view += n
    tls.view_size -= n
    return <int>n


cdef int write_view(BIO* bio, const char* data, int size) noexcept nogil:
    cdef Tls* tls = <Tls*>BIO_get_data(bio)
    cdef Output* written = tls.written
    BIO_clear_retry_flags(bio)
    if written == NULL or <uint32_t>size > written.room - written.size:
        BIO_set_retry_write(bio)
        return -1
    memcpy(written.data + written.size, data, <size_t>size)
    written.size += <uint32_t>size
    return size


cdef long control_view(BIO* bio, int what, long number, void* pointer) noexcept nogil:
    return what == BIO_CTRL_FLUSH


cdef int make_view_method() except -1:
    global view_method, codec_index
    view_method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, b"flashpol view")
    codec_index = SSL_get_ex_new_index(0, NULL, NULL, NULL, NULL)
    if view_method == NULL or codec_index < 0:
        raise MemoryError
    BIO_meth_set_read(view_method, read_view)
    BIO_meth_set_write(view_method, write_view)
    BIO_meth_set_ctrl(view_method, control_view)
    return 0


make_view_method()


# ------------------------------------------------------------------------------------------- called back by OpenSSL

cdef inline Tls* codec_of(const SSL* ssl) noexcept nogil:
    return <Tls*>SSL_get_ex_data(ssl, codec_index)


cdef inline bint is_modern_suite(unsigned int suite) noexcept nogil:
    """TLS 1.3, or ECDHE with AEAD: https://www.iana.org/assignments/tls-parameters."""
    return 0x1301 <= suite <= 0x1305 or suite in (0xC02B, 0xC02C, 0xC02F, 0xC030, 0xCCA8, 0xCCA9)


cdef int on_client_hello(SSL* ssl, int* alert, void* argument) noexcept nogil:
    """Note whether the client offers a suite of the modern profile."""
    cdef const unsigned char* ciphers = NULL
    cdef size_t i, size = SSL_client_hello_get0_ciphers(ssl, &ciphers)
    cdef Tls* tls = codec_of(ssl)
    tls.old_client = True
    for i in range(size // 2):
        if is_modern_suite(<unsigned int>ciphers[2 * i] << 8 | ciphers[2 * i + 1]):
            tls.old_client = False
            break
    return SSL_CLIENT_HELLO_SUCCESS


cdef void on_record(
    int sent, int version, int content, const void* data, size_t size, SSL* ssl, void* argument,
) noexcept nogil:
    """Count the records and handshake messages that are received. At a limit OpenSSL finds no more input."""
    cdef Tls* tls
    if sent or (content != SSL3_RT_HEADER and content != SSL3_RT_HANDSHAKE):
        return
    tls = codec_of(ssl)
    if not tls.codec.established:
        return
    if content == SSL3_RT_HEADER:
        tls.empty += 1
    else:
        tls.messages += 1
    if tls.empty > MAX_EMPTY or tls.messages > MAX_MESSAGES + (tls.decoded >> 20):
        tls.flooding = True
        tls.view_size = 0


# ---------------------------------------------------------------------------------------------------------------- calls

cdef inline void begin_call(Tls* tls, const char* view, uint32_t size, Output* written) noexcept nogil:
    tls.view = view
    tls.view_size = size
    tls.written = written
    if ERR_peek_error() != 0:           # four times as fast as to clear an empty queue
        ERR_clear_error()


cdef inline void end_call(Tls* tls) noexcept nogil:
    tls.view = NULL
    tls.view_size = 0
    tls.written = NULL


cdef uint8_t failure_of_call(const Tls* tls) noexcept nogil:
    """What OpenSSL's error means."""
    cdef unsigned long error = ERR_peek_error()
    cdef int reason = ERR_GET_REASON(error)
    if tls.refused_name:
        return HF_NAME
    if ERR_GET_LIB(error) != ERR_LIB_SSL:
        return HF_MALFORMED if error else HF_CAPACITY
    if reason in (SSL_R_NO_SHARED_CIPHER, SSL_R_NO_SUITABLE_SIGNATURE_ALGORITHM, SSL_R_NO_SUITABLE_KEY_SHARE):
        return HF_OLD_CLIENT if tls.old_client else HF_CIPHER
    if reason in (SSL_R_UNSUPPORTED_PROTOCOL, SSL_R_VERSION_TOO_LOW, SSL_R_VERSION_TOO_HIGH, SSL_R_UNKNOWN_PROTOCOL,
                  SSL_R_WRONG_SSL_VERSION, SSL_R_WRONG_VERSION_NUMBER):
        return HF_VERSION
    if reason == SSL_R_NO_APPLICATION_PROTOCOL:
        return HF_ALPN
    if SSL_R_SSLV3_ALERT_BAD_CERTIFICATE <= reason <= SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
        return HF_CERTIFICATE
    if reason == SSL_R_TLSV1_ALERT_UNKNOWN_CA:
        return HF_CERTIFICATE
    if ALERT_REASONS <= reason < ALERT_REASONS + ALERT_COUNT:
        return HF_ALERT
    return HF_MALFORMED if reason < ALERT_REASONS else HF_CAPACITY         # OpenSSL's own failures, such as no memory


cdef inline CodecResult fail(Tls* tls, uint8_t failure) noexcept nogil:
    tls.failed = True
    tls.codec.failure = failure
    end_call(tls)
    ERR_clear_error()                   # the program may use OpenSSL for other connections, as Python's ssl does
    return CODEC_ERROR


cdef uint8_t keep_input(Tls* tls, const char* wire, uint32_t size) noexcept nogil:
    """Keep handshake bytes for the next turn. HF_NONE, or why they cannot be kept."""
    cdef char* larger
    tls.received += size
    if tls.input_size + size > MAX_INPUT or tls.received > MAX_HANDSHAKE:
        return HF_FLOOD
    larger = <char*>realloc(tls.input, tls.input_size + size)
    if larger == NULL:
        return HF_CAPACITY
    memcpy(larger + tls.input_size, wire, size)
    tls.input = larger
    tls.input_size += size
    return HF_NONE


cdef inline void drop_input(Tls* tls) noexcept nogil:
    free(tls.input)
    tls.input = NULL
    tls.input_size = 0


cdef uint32_t hello_bytes(const Tls* tls) noexcept nogil:
    """How many bytes the hello has, by its head, or the head alone until that is complete; 0: it is none."""
    cdef const uint8_t* input = <const uint8_t*>tls.input
    cdef uint8_t[MESSAGE_HEAD] head
    cdef uint32_t size, at = 0, found = 0, i
    if tls.hello_size < MESSAGE_HEAD:
        return MESSAGE_HEAD
    # The message's head may lie in several records.
    while found < MESSAGE_HEAD:
        size = <uint32_t>input[at + 3] << 8 | input[at + 4]
        for i in range(min(size, <uint32_t>MESSAGE_HEAD - found)):
            head[found] = input[at + RECORD_HEAD + i]
            found += 1
        at += RECORD_HEAD + size
    size = MESSAGE_HEAD + (<uint32_t>head[1] << 16 | <uint32_t>head[2] << 8 | head[3])
    return size if head[0] == CLIENT_HELLO and size <= MAX_HELLO else 0


cdef CodecResult find_hello(Tls* tls) noexcept nogil:
    """CODEC_WORK once the hello is complete, over as many records as it has; CODEC_ERROR if it cannot be one.

    So the first bytes of one cost their own memory, and neither an SSL object nor a place. What follows the hello is
    OpenSSL's to judge: early data (RFC 8446 section 2.3) of a client that has a ticket of another server, which OpenSSL
    skips.
    """
    cdef const uint8_t* input = <const uint8_t*>tls.input
    cdef uint32_t size, at, needed = hello_bytes(tls)
    while tls.hello_size < needed and tls.next_record + RECORD_HEAD <= tls.input_size:
        at = tls.next_record
        size = <uint32_t>input[at + 3] << 8 | input[at + 4]
        if input[at] != HANDSHAKE_RECORD or size == 0 or tls.hello_size + size > MAX_HELLO:
            return CODEC_ERROR
        if at + RECORD_HEAD + size > tls.input_size:
            break
        tls.next_record = at + RECORD_HEAD + size
        tls.hello_size += size
        needed = hello_bytes(tls)
        if needed == 0:
            return CODEC_ERROR
    return CODEC_WORK if tls.hello_size >= needed else CODEC_OK


cdef CodecResult refuse_input(Tls* tls, uint8_t failure, Output* reply) noexcept nogil:
    """Refuse handshake bytes before OpenSSL sees them: alert unexpected_message (RFC 8446 section 6)."""
    cdef const char* alert = b"\x15\x03\x01\x00\x02\x02\x0a"
    if reply.room - reply.size >= 7:
        memcpy(reply.data + reply.size, alert, 7)
        reply.size += 7
    return fail(tls, failure)


cdef bint begin_ssl(Tls* tls) noexcept nogil:
    cdef BIO* bio
    tls.ssl = SSL_new(tls.context.first)
    if tls.ssl == NULL:
        return False
    bio = BIO_new(view_method)
    if bio == NULL:
        return False
    BIO_set_data(bio, tls)
    BIO_set_init(bio, 1)
    SSL_set_bio(tls.ssl, bio, bio)
    SSL_set_accept_state(tls.ssl)
    return SSL_set_ex_data(tls.ssl, codec_index, tls) == 1


cdef CodecResult read_plain(Tls* tls, Output* plain) noexcept nogil:
    """Decode the whole view."""
    cdef int n, error
    while True:
        n = SSL_read(tls.ssl, plain.data + plain.size, <int>(plain.room - plain.size))
        if n > 0:
            plain.size += <uint32_t>n
            tls.decoded += <uint64_t>n
            tls.empty = 0
            if plain.size == plain.room and tls.view_size:
                return fail(tls, HF_MALFORMED)          # no TLS makes bytes more by decoding
            if tls.view_size == 0 and not tls.flooding and not SSL_has_pending(tls.ssl):
                # This was all. Another call would find out by making a buffer and freeing it.
                end_call(tls)
                return CODEC_OK
            continue
        error = SSL_get_error(tls.ssl, n)
        if error == SSL_ERROR_WANT_READ:
            if tls.flooding:
                return fail(tls, HF_FLOOD)
            end_call(tls)
            return CODEC_OK
        if error == SSL_ERROR_ZERO_RETURN:
            tls.codec.ended = True
            end_call(tls)
            return CODEC_END
        return fail(tls, failure_of_call(tls))


# ---------------------------------------------------------------------------------------------------- what callers see

cdef CodecResult decode_tls(
    Codec* codec, const char* wire, uint32_t size, Output* plain, Output* reply,
) noexcept nogil:
    cdef Tls* tls = <Tls*>codec
    cdef CodecResult result
    cdef uint8_t failure
    if tls.failed:
        return CODEC_ERROR
    if not codec.established:
        failure = keep_input(tls, wire, size)
        if failure != HF_NONE:
            return refuse_input(tls, failure, reply)
        result = CODEC_WORK if tls.ssl != NULL else find_hello(tls)
        return refuse_input(tls, HF_MALFORMED, reply) if result == CODEC_ERROR else result
    begin_call(tls, wire, size, reply)
    return read_plain(tls, plain)


cdef CodecResult work_tls(Codec* codec, Output* plain, Output* reply) noexcept nogil:
    cdef Tls* tls = <Tls*>codec
    cdef CodecResult result = CODEC_OK
    cdef int done, error
    if tls.failed:
        return CODEC_ERROR
    if tls.ssl == NULL and not begin_ssl(tls):
        return fail(tls, HF_CAPACITY)
    begin_call(tls, tls.input, tls.input_size, reply)
    done = SSL_do_handshake(tls.ssl)
    if done == 1:
        codec.established = True
        codec.version = version_of(tls.ssl)
        codec.cipher = SSL_get_cipher_name(tls.ssl)
        codec.resumed = SSL_session_reused(tls.ssl) == 1
        result = read_plain(tls, plain)
    else:
        error = SSL_get_error(tls.ssl, done)
        if error == SSL_ERROR_ZERO_RETURN:
            result = fail(tls, HF_CLOSED)
        elif error != SSL_ERROR_WANT_READ:
            result = fail(tls, failure_of_call(tls))
    end_call(tls)
    drop_input(tls)
    return result


cdef inline uint8_t version_of(const SSL* ssl) noexcept nogil:
    cdef int version = SSL_version(ssl)
    if version == TLS1_3_VERSION:
        return VERSION_TLS_1_3
    if version == TLS1_2_VERSION:
        return VERSION_TLS_1_2
    return VERSION_TLS_1_1 if version == TLS1_1_VERSION else VERSION_TLS_1_0


cdef bint encode_tls(Codec* codec, const char* plain, uint32_t size, Output* wire) noexcept nogil:
    cdef Tls* tls = <Tls*>codec
    cdef bint done
    if tls.failed or not codec.established:
        return False
    if size == 0:
        return True
    begin_call(tls, NULL, 0, wire)
    done = SSL_write(tls.ssl, plain, <int>size) == <int>size
    end_call(tls)
    if not done:
        fail(tls, HF_CAPACITY)
    return done


cdef void finish_tls(Codec* codec, CodecEnd why, Output* wire) noexcept nogil:
    cdef Tls* tls = <Tls*>codec
    if not codec.finished and not tls.failed and codec.established:
        begin_call(tls, NULL, 0, wire)
        SSL_shutdown(tls.ssl)
        end_call(tls)
    codec.finished = True


cdef const char* server_name_tls(Codec* codec) noexcept nogil:
    cdef Tls* tls = <Tls*>codec
    if tls.ssl == NULL:
        return NULL
    return SSL_get_servername(tls.ssl, TLSEXT_NAMETYPE_host_name)


cdef void shrink_tls(Codec* codec) noexcept nogil:
    cdef Tls* tls = <Tls*>codec
    ERR_clear_error()
    SSL_free(tls.ssl)
    tls.ssl = NULL
    tls.failed = True
    drop_input(tls)


cdef void release_tls(Codec* codec) noexcept nogil:
    shrink_tls(codec)
    free(codec)


cdef CodecType tls_type
tls_type.is_tls = True
tls_type.decode = decode_tls
tls_type.work = work_tls
tls_type.encode = encode_tls
tls_type.finish = finish_tls
tls_type.server_name = server_name_tls
tls_type.shrink = shrink_tls
tls_type.release = release_tls


cdef Codec* begin_tls(Factory* factory) noexcept nogil:
    cdef Tls* tls = <Tls*>calloc(1, sizeof(Tls))
    if tls == NULL:
        return NULL
    tls.codec.type = &tls_type
    tls.codec.failure = HF_NONE
    tls.context = <Context*>factory.context
    return &tls.codec
