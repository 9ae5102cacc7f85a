# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: auto_pickle=False, autotestdict=False
"""TLS by OpenSSL: certificates, and the codec that ends TLS for the fast path and the pump."""

from cython cimport final

from flashpol._fastpath cimport CodecFactory
from flashpol._native.codecs.codec cimport (
    CE_DONE, Codec, CODEC_GROWTH, HF_NONE, Output,
)
from flashpol._native.tls.openssl cimport OPENSSL_VERSION, OpenSSL_version, SSL_get_ex_new_index

from flashpol import _fastpath

LIBRARY = OpenSSL_version(OPENSSL_VERSION).decode("ascii")


class TlsError(Exception):
    """What is wrong with a certificate, a key, or a setting of TLS: one line."""


include "_native/bindings/codec_calls.pxi"
include "_native/tls/codec.pxi"
include "_native/tls/context.pxi"
include "_native/tls/certificate.pxi"


@final
cdef class ServerContext(CodecFactory):
    cdef Context context
    cdef dict _contexts                 # numbers of certificates -> index in _made
    cdef list _certificates
    cdef SSL_CTX** _made
    cdef uint32_t _made_count
    cdef str _profile
    cdef int _tickets
    cdef bytes _ticket_keys

    def __cinit__(self, certificates not None, *, str profile not None="modern", bint strict_sni=False, int tickets=0,
                  bytes ticket_keys not None=b""):
        self._certificates = [tuple(each) for each in certificates]
        if not self._certificates:
            raise TlsError("tls names no certificate")
        if profile not in SUITES:
            raise TlsError(f"{profile!r} is no tls_profile; one of {', '.join(PROFILES)}")
        if ticket_keys and len(ticket_keys) != TICKET_KEY_BYTES:
            raise TlsError(f"ticket keys are {TICKET_KEY_BYTES} bytes")
        self._profile, self._tickets, self._ticket_keys = profile, tickets, ticket_keys
        self._contexts = {}
        kinds = [kind_of_key(chain) for chain, _, _ in self._certificates]
        by_name = {}
        for number, (_, _, names) in enumerate(self._certificates):
            for name in names:
                by_name.setdefault(name.lower().rstrip("."), {}).setdefault(kinds[number], number)
        first_names = {name.lower().rstrip(".") for name in self._certificates[0][2]}
        first = {kinds[0]: 0}
        for name in sorted(first_names):
            for kind, number in by_name[name].items():
                first.setdefault(kind, min(number, first.get(kind, number)))
        # At most one context for each name, and the first.
        self._made = <SSL_CTX**>calloc(len(by_name) + 1, sizeof(SSL_CTX*))
        if self._made == NULL:
            raise MemoryError
        self.context.strict_sni = strict_sni
        self.context.first = self._context_of(tuple(sorted(first.values())))
        self._fill(&self.context.exact, {name: each for name, each in by_name.items() if not name.startswith("*.")})
        self._fill(&self.context.wildcard, {name[1:]: each for name, each in by_name.items() if name.startswith("*.")})
        self.factory.begin = begin_tls
        self.factory.context = &self.context

    def __dealloc__(self):
        cdef uint32_t i
        for i in range(self._made_count):
            SSL_CTX_free(self._made[i])
        free(self._made)
        free(self.context.exact.rows)
        free(self.context.wildcard.rows)

    cdef int _fill(self, Names* names, dict by_name) except -1:
        cdef CertificateName* row
        cdef bytes text
        names.rows = <CertificateName*>calloc(max(len(by_name), 1), sizeof(CertificateName))
        if names.rows == NULL:
            raise MemoryError
        for text in sorted([name.encode() for name in by_name]):
            if len(text) > MAX_NAME:
                continue
            row = &names.rows[names.count]
            memcpy(row.text, <const char*>text, len(text))
            row.size = <uint8_t>len(text)
            row.context = self._context_of(tuple(sorted(by_name[text.decode()].values())))
            names.count += 1
        return 0

    cdef SSL_CTX* _context_of(self, tuple numbers) except NULL:
        """The context with these certificates."""
        if numbers not in self._contexts:
            self._contexts[numbers] = self._made_count
            self._make_context(numbers)
        return self._made[<uint32_t>self._contexts[numbers]]

    cdef int _make_context(self, tuple numbers) except -1:
        cdef SSL_CTX* made = SSL_CTX_new(TLS_server_method())
        if made == NULL:
            raise MemoryError
        self._made[self._made_count] = made
        self._made_count += 1
        # The system's openssl.cnf may have set other bounds: all are set here.
        SSL_CTX_set_min_proto_version(made, TLS1_VERSION if self._profile == "flash" else TLS1_2_VERSION)
        SSL_CTX_set_max_proto_version(made, TLS1_3_VERSION)
        ERR_clear_error()
        if (SSL_CTX_set_cipher_list(made, <bytes>SUITES[self._profile]) != 1
                or SSL_CTX_set_ciphersuites(made, SUITES_1_3) != 1 or SSL_CTX_set1_groups_list(made, GROUPS) != 1):
            raise TlsError(f"OpenSSL has no cipher suite of tls_profile {self._profile}: {last_error()}")
        SSL_CTX_set_options(
            made,
            SSL_OP_ALL | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_CIPHER_SERVER_PREFERENCE
            | SSL_OP_PRIORITIZE_CHACHA,
        )
        # Against BEAST in TLS 1.0; SSL_OP_ALL would leave it out.
        SSL_CTX_clear_options(made, SSL_OP_DONT_INSERT_EMPTY_FRAGMENTS)
        SSL_CTX_set_mode(made, SSL_MODE_RELEASE_BUFFERS)
        SSL_CTX_set_session_cache_mode(made, SSL_SESS_CACHE_OFF)
        # Listeners have the same ticket keys. A session of the flash profile would keep its old suite in another one.
        name = self._profile.encode()
        SSL_CTX_set_session_id_context(made, <const unsigned char*><const char*>name, <unsigned int>len(name))
        SSL_CTX_set_num_tickets(made, <size_t>self._tickets)
        if self._tickets == 0:
            SSL_CTX_set_options(made, SSL_OP_NO_TICKET)
        elif self._ticket_keys:
            SSL_CTX_set_tlsext_ticket_keys(made, <char*><const char*>self._ticket_keys, TICKET_KEY_BYTES)
        SSL_CTX_set_client_hello_cb(made, on_client_hello, NULL)
        SSL_CTX_set_tlsext_servername_callback(made, on_server_name)
        SSL_CTX_set_tlsext_servername_arg(made, &self.context)
        SSL_CTX_set_alpn_select_cb(made, on_protocols, NULL)
        SSL_CTX_set_msg_callback(made, on_record)
        for number in numbers:
            chain, key, _ = self._certificates[number]
            add_chain(made, chain)
            add_key(made, key)
            if SSL_CTX_check_private_key(made) != 1:
                raise TlsError(f"the key does not belong to the certificate: {last_error()}")
        return 0

    def codec(self):
        return TlsCodec(self)


@final
cdef class TlsCodec:
    """The codec of one connection, for tests: the fast path and the pump call it in C."""

    cdef Codec* _codec
    cdef ServerContext _context         # keeps alive what `_codec` points to

    def __cinit__(self, ServerContext context not None):
        self._context = context
        self._codec = context.factory.begin(&context.factory)
        if self._codec == NULL:
            raise MemoryError

    def __dealloc__(self):
        if self._codec != NULL:
            self._codec.type.release(self._codec)

    def decode(self, bytes wire not None):
        return call_codec(self._codec, wire)

    def work(self):
        return call_codec(self._codec, None)

    def encode(self, bytes plain not None):
        cdef Output wire
        cdef bytes room = bytes(len(plain) + CODEC_GROWTH)
        wire.data, wire.size, wire.room = <char*><const char*>room, 0, <uint32_t>len(room)
        if not self._codec.type.encode(self._codec, <const char*>plain, <uint32_t>len(plain), &wire):
            return None
        return wire.data[:wire.size]

    def finish(self):
        cdef Output wire
        cdef bytes room = bytes(CODEC_GROWTH)
        wire.data, wire.size, wire.room = <char*><const char*>room, 0, CODEC_GROWTH
        self._codec.type.finish(self._codec, CE_DONE, &wire)
        return wire.data[:wire.size]

    @property
    def established(self):
        return bool(self._codec.established)

    @property
    def ended(self):
        return bool(self._codec.ended)

    @property
    def version(self):
        return _fastpath.TLS_VERSIONS[self._codec.version] if self._codec.established else None

    @property
    def resumed(self):
        return bool(self._codec.resumed)

    @property
    def unknown_name(self):
        return bool(self._codec.unknown_name)

    @property
    def failure(self):
        return None if self._codec.failure == HF_NONE else _fastpath.HANDSHAKE_FAILURES[self._codec.failure]
