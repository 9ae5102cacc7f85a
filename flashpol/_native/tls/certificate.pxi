# Certificates: what is read of a chain and its key.
#
# A chain or a key that cannot be used is a TlsError. What clients will object to is a finding, a line of text. Nothing
# here reads the clock: the caller compares `not_after` with it. Every call of OpenSSL that may fail begins with an
# empty error queue, since one queue serves the whole thread.

import ipaddress

from libc.stddef cimport size_t
from libc.string cimport memset
from libc.time cimport tm

cimport flashpol._native.tls.x509 as x509
from flashpol._native.tls.openssl cimport BIO, EVP_PKEY, X509

cdef enum:
    MAX_PEM_BYTES = 1 << 20     # of a file
    MAX_CHAIN = 16              # certificates in a file: chains have 2 to 4, lists of roots more than 100
    SHORTEST_RSA = 2048         # bits: clients refuse shorter keys
    LONGEST_RSA = 3072          # bits: with more, each handshake delays all other clients of the worker by 5 ms
    DIGEST_BYTES = 64           # EVP_MAX_MD_SIZE

_BETTER_KEY = "use ECDSA P-256 or RSA 2048"
_CURVES = {"prime256v1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
_WEAK_DIGESTS = {x509.NID_md5: "MD5", x509.NID_sha1: "SHA-1"}
# What a file may have instead of certificates, by the words after BEGIN, and what to do.
_OTHER_CONTENTS = {
    b"CERTIFICATE REQUEST": "has a request (CSR): use the certificate that its issuer made of it",
    b"NEW CERTIFICATE REQUEST": "has a request (CSR): use the certificate that its issuer made of it",
    b"PKCS7": "is PKCS #7: convert it with `openssl pkcs7 -print_certs -in FILE -out NEW`",
    b"TRUSTED CERTIFICATE": "is in a form that only OpenSSL reads: convert it with `openssl x509 -in FILE -out NEW`",
}


class PrivateKeyError(TlsError):
    """The private key cannot be used."""


class KeyMismatch(PrivateKeyError):
    """The private key is another certificate's."""


# -------------------------------------------------------------------------------------------------------- reading files


cdef int refuse_passphrase(char* buffer, int size, int writing, void* asked) noexcept nogil:
    """OpenSSL calls it for an encrypted key; without it, it would ask on the terminal."""
    (<int*>asked)[0] = 1
    return -1


cdef BIO* reader_of(bytes data, error) except NULL:
    """A BIO that reads `data`, which must outlive it. error: the class of the error for too many bytes."""
    cdef BIO* bio
    if len(data) > MAX_PEM_BYTES:
        raise error(f"is larger than {MAX_PEM_BYTES:,} bytes: is this a PEM file?")
    x509.ERR_clear_error()
    bio = x509.BIO_new_mem_buf(<const char*>data, <int>len(data))
    if bio == NULL:
        raise MemoryError
    return bio


cdef str without_certificate(bytes data):
    """What is wrong with a file in which there is none, and what to do."""
    for words, advice in _OTHER_CONTENTS.items():
        if b"-----BEGIN " + words + b"-----" in data:
            return advice
    return f"{not_pem(data, 'x509') or 'has no certificate'}: write a file with -----BEGIN CERTIFICATE----- in it"


cdef str without_key(bytes data):
    """The same for a private key."""
    return f"{not_pem(data, 'pkey') or 'has no private key'}: write a file with -----BEGIN PRIVATE KEY----- in it"


cdef str not_pem(bytes data, str command):
    """What a file is, if it is no PEM; an empty text otherwise."""
    if not data.strip():
        return "is empty"
    if b"-----BEGIN " in data:
        return ""
    if data[:1] == b"\x30":  # a SEQUENCE of ASN.1, with which certificates, keys and PKCS #12 begin
        return f"is DER (convert it with `openssl {command} -in FILE -out NEW`; a .p12 or .pfx with `openssl pkcs12`)"
    return "is not PEM"


cdef class _Chain:
    """The certificates of a file; the first one is the server's."""

    cdef X509* certificates[MAX_CHAIN]
    cdef int size

    def __dealloc__(self):
        cdef int i
        for i in range(self.size):
            x509.X509_free(self.certificates[i])

    cdef int read(self, bytes pem) except -1:
        cdef BIO* bio = reader_of(pem, TlsError)
        cdef X509* certificate
        cdef unsigned long error
        try:
            while True:
                x509.ERR_clear_error()
                certificate = x509.PEM_read_bio_X509(bio, NULL, NULL, NULL)
                if certificate == NULL:
                    break
                if self.size == MAX_CHAIN:
                    x509.X509_free(certificate)
                    raise TlsError(
                        f"has more than {MAX_CHAIN} certificates: write the server's and the intermediate ones, no "
                        "list of roots"
                    )
                self.certificates[self.size] = certificate
                self.size += 1
            error = x509.ERR_peek_last_error()
            # At the end of the file there is no further line that begins one. What OpenSSL's newest error says of
            # anything else is of no use to an operator.
            if x509.ERR_GET_LIB(error) != x509.ERR_LIB_PEM or x509.ERR_GET_REASON(error) != x509.PEM_R_NO_START_LINE:
                raise TlsError(f"certificate {self.size + 1} of the file is damaged: get it from its issuer again")
        finally:
            x509.BIO_free(bio)
            x509.ERR_clear_error()
        if self.size == 0:
            raise TlsError(without_certificate(pem))
        return 0


cdef EVP_PKEY* read_key(bytes pem) except NULL:
    cdef BIO* bio = reader_of(pem, PrivateKeyError)
    cdef EVP_PKEY* key
    cdef int encrypted = 0
    try:
        key = x509.PEM_read_bio_PrivateKey(bio, NULL, refuse_passphrase, &encrypted)
    finally:
        x509.BIO_free(bio)
        x509.ERR_clear_error()
    if key == NULL and encrypted:
        raise PrivateKeyError(
            "the private key has a passphrase, which a server cannot be asked for: remove it with "
            "`openssl pkey -in FILE -out NEW`"
        )
    if key == NULL and b"PRIVATE KEY-----" in pem:
        raise PrivateKeyError("the private key is damaged: restore it, or make a new key and have a certificate issued")
    if key == NULL:
        raise PrivateKeyError(without_key(pem))
    return key


# ---------------------------------------------------------------------------------------------------------------- facts


cdef str text_of(BIO* bio):
    """What has been written into a BIO of memory."""
    cdef char* data = NULL
    cdef long size = x509.BIO_get_mem_data(bio, &data)
    return (<bytes>data[:size]).decode("utf-8", "replace") if size > 0 else ""


cdef str host_name(bytes data):
    """In lower case; empty if it is no name of a host."""
    text = data.decode("ascii", "replace").lower()
    return text if text.isascii() and all([c.isalnum() or c in "-_.*" for c in text]) else ""


cdef bytes content_of(const x509.ASN1_STRING* text):
    return (<const char*>x509.ASN1_STRING_get0_data(text))[:x509.ASN1_STRING_length(text)]


cdef str common_name(X509* certificate):
    """The CN of its subject, if that is the name of a host; an empty text otherwise."""
    cdef const x509.X509_NAME* subject = x509.X509_get_subject_name(certificate)
    cdef int index = x509.X509_NAME_get_index_by_NID(subject, x509.NID_commonName, -1)
    cdef unsigned char* text = NULL
    cdef int size
    if index < 0:
        return ""
    x509.ERR_clear_error()
    size = x509.ASN1_STRING_to_UTF8(&text, x509.X509_NAME_ENTRY_get_data(x509.X509_NAME_get_entry(subject, index)))
    if size < 0:
        x509.ERR_clear_error()
        return ""
    try:
        return host_name(<bytes>(<char*>text)[:size])
    finally:
        x509.OPENSSL_free(text)


cdef str title_of(const x509.X509_NAME* name):
    """A subject or an issuer, as messages name it."""
    cdef BIO* bio
    x509.ERR_clear_error()
    bio = x509.BIO_new(x509.BIO_s_mem())
    if bio == NULL:
        raise MemoryError
    try:
        x509.X509_NAME_print_ex(bio, name, 0, x509.XN_FLAG_RFC2253)
        return repr(text_of(bio) or "(no subject)")
    finally:
        x509.BIO_free(bio)
        x509.ERR_clear_error()


cdef str subject_of(X509* certificate):
    return title_of(x509.X509_get_subject_name(certificate))


cdef str ip_address(bytes data):
    """Of an iPAddress; empty if it is none."""
    return str(ipaddress.ip_address(data)) if len(data) in (4, 16) else ""


cdef tuple alternative_names(X509* certificate):
    """The host names and IP addresses of the subjectAltName, each once."""
    cdef x509.GENERAL_NAMES* names
    cdef const void* value
    cdef int i, kind = 0
    found = []
    x509.ERR_clear_error()
    names = <x509.GENERAL_NAMES*>x509.X509_get_ext_d2i(certificate, x509.NID_subject_alt_name, NULL, NULL)
    x509.ERR_clear_error()
    if names == NULL:
        return ()
    try:
        for i in range(x509.sk_GENERAL_NAME_num(names)):
            value = x509.GENERAL_NAME_get0_value(x509.sk_GENERAL_NAME_value(names, i), &kind)
            if kind == x509.GEN_DNS:
                found.append(host_name(content_of(<const x509.ASN1_STRING*>value)))
            elif kind == x509.GEN_IPADD:
                found.append(ip_address(content_of(<const x509.ASN1_STRING*>value)))
    finally:
        x509.GENERAL_NAMES_free(names)
    return tuple(dict.fromkeys(filter(None, found)))


cdef bint names_its_issuers_address(X509* certificate):
    """It says where to load its issuer's certificate (caIssuers), as those of all public authorities do."""
    cdef x509.AUTHORITY_INFO_ACCESS* places
    cdef int i
    cdef bint found = False
    x509.ERR_clear_error()
    places = <x509.AUTHORITY_INFO_ACCESS*>x509.X509_get_ext_d2i(certificate, x509.NID_info_access, NULL, NULL)
    x509.ERR_clear_error()
    if places == NULL:
        return False
    for i in range(x509.sk_ACCESS_DESCRIPTION_num(places)):
        if x509.OBJ_obj2nid(x509.sk_ACCESS_DESCRIPTION_value(places, i).method) == x509.NID_ad_ca_issuers:
            found = True
    x509.AUTHORITY_INFO_ACCESS_free(places)
    return found


cdef object unix_time(const x509.ASN1_TIME* when):
    """Seconds since 1970."""
    cdef tm parts
    memset(&parts, 0, sizeof(parts))
    x509.ERR_clear_error()
    if when == NULL or x509.ASN1_TIME_to_tm(when, &parts) != 1:
        x509.ERR_clear_error()
        raise TlsError("the certificate's dates cannot be read: have it issued again")
    return <long long>x509.timegm(&parts)


cdef str kind_of(EVP_PKEY* key):
    """Such as "ECDSA P-256" or "RSA 2048"."""
    cdef char name[64]
    cdef size_t size = 0
    cdef const char* kind = x509.EVP_PKEY_get0_type_name(key)
    if x509.EVP_PKEY_is_a(key, "RSA") or x509.EVP_PKEY_is_a(key, "RSA-PSS"):
        return f"{kind.decode('ascii')} {x509.EVP_PKEY_get_bits(key)}"
    if x509.EVP_PKEY_is_a(key, "EC"):
        x509.ERR_clear_error()
        if x509.EVP_PKEY_get_group_name(key, name, sizeof(name), &size) != 1:
            x509.ERR_clear_error()
            return "ECDSA"
        curve = (<bytes>name[:size]).decode("ascii", "replace")
        return f"ECDSA {_CURVES.get(curve, curve)}"
    return kind.decode("ascii").capitalize() if kind != NULL else "unknown"


cdef str digest_of(X509* certificate):
    """SHA-256 in hexadecimal."""
    cdef unsigned char digest[DIGEST_BYTES]
    cdef unsigned int size = 0
    x509.ERR_clear_error()
    if x509.X509_digest(certificate, x509.EVP_sha256(), digest, &size) != 1:
        x509.ERR_clear_error()
        raise MemoryError
    return (<bytes>(<char*>digest)[:size]).hex()


# ------------------------------------------------------------------------------------------------------------- findings


cdef bint is_self_signed(X509* certificate):
    cdef int answer
    x509.ERR_clear_error()
    answer = x509.X509_self_signed(certificate, 1)
    x509.ERR_clear_error()
    return answer == 1


cdef bint has_issued(X509* issuer, X509* certificate):
    """By name and by signature."""
    cdef EVP_PKEY* key
    cdef bint answer
    x509.ERR_clear_error()
    key = x509.X509_get0_pubkey(issuer)
    answer = (
        key != NULL
        and x509.X509_check_issued(issuer, certificate) == x509.X509_V_OK
        and x509.X509_verify(certificate, key) == 1
    )
    x509.ERR_clear_error()
    return answer


cdef list judge_names(X509* certificate, tuple names):
    if names:
        return []
    if common := common_name(certificate):
        return [f"has its name, {common!r}, only in the subject, where clients ignore it: have it issued with a "
                "subjectAltName"]
    return ["has no name, so clients refuse it: have it issued with a subjectAltName"]


cdef list judge_key(X509* certificate, str which):
    """Whether clients can use its key. which: how a finding begins."""
    cdef EVP_PKEY* key
    x509.ERR_clear_error()
    key = x509.X509_get0_pubkey(certificate)
    x509.ERR_clear_error()
    if key == NULL:
        return [f"{which}has a key of a kind that OpenSSL does not know: {_BETTER_KEY}"]
    kind = kind_of(key)
    if x509.EVP_PKEY_is_a(key, "RSA"):
        if x509.EVP_PKEY_get_bits(key) < SHORTEST_RSA:
            return [f"{which}has a weak key, {kind}, which clients refuse: {_BETTER_KEY}"]
    elif kind.removeprefix("ECDSA ") not in _CURVES.values():
        return [f"{which}has a key of a kind that few clients can use, {kind}: {_BETTER_KEY}"]
    return []


cdef list judge_signature(X509* certificate, str which):
    cdef int digest = 0
    x509.ERR_clear_error()
    x509.X509_get_signature_info(certificate, &digest, NULL, NULL, NULL)
    x509.ERR_clear_error()
    if digest not in _WEAK_DIGESTS or is_self_signed(certificate):  # no client checks what a root says of itself
        return []
    return [f"{which}is signed with {_WEAK_DIGESTS[digest]}, which clients refuse: have it issued again"]


cdef list judge_chain(_Chain chain):
    """Each certificate is followed by its issuer; the root may be missing, and an intermediate one not."""
    cdef int i, last = 0
    path, rest = [0], list(range(1, chain.size))
    while not is_self_signed(chain.certificates[last]):
        issuers = [i for i in rest if has_issued(chain.certificates[i], chain.certificates[last])]
        if not issuers:
            break
        last = issuers[0]
        path.append(last)
        rest.remove(last)
    found = []
    if path != sorted(path):
        titles = ", ".join([subject_of(chain.certificates[i]) for i in path])
        found.append(f"the certificates are not in order, and some clients refuse them: write {titles}")
    found += [f"{subject_of(chain.certificates[i])} is not part of the chain, or there twice: remove it" for i in rest]
    # A root may issue a server's certificate itself, but no public one does: theirs name the address of their issuer's.
    alone = len(path) == 1 and not is_self_signed(chain.certificates[0])
    if alone and (rest or names_its_issuers_address(chain.certificates[0])):
        issuer = title_of(x509.X509_get_issuer_name(chain.certificates[0]))
        found.append(
            f"the intermediate certificate {issuer} is missing, and clients that do not have it refuse the others: "
            "append it (certbot: use fullchain.pem)"
        )
    return found


cdef list judge(_Chain chain, tuple names):
    """What clients will object to, apart from dates."""
    cdef X509* own = chain.certificates[0]
    cdef int i
    found = judge_names(own, names)
    if is_self_signed(own):
        found.append(
            "is self-signed, so clients refuse it unless they have it as trusted: use one of a certificate authority"
        )
    found += [*judge_key(own, ""), *judge_signature(own, "")]
    if x509.EVP_PKEY_get_bits(x509.X509_get0_pubkey(own)) > LONGEST_RSA:
        found.append(
            f"has a long key, {kind_of(x509.X509_get0_pubkey(own))}: a handshake takes 5 ms of CPU, over ten times as "
            f"long as with ECDSA P-256: {_BETTER_KEY}"
        )
    if x509.X509_check_purpose(own, x509.X509_PURPOSE_SSL_SERVER, 0) != 1:
        found.append("is not meant for TLS servers, so clients refuse it: have it issued for serverAuth")
    for i in range(1, chain.size):
        which = f"the intermediate certificate {subject_of(chain.certificates[i])} "
        found += [*judge_key(chain.certificates[i], which), *judge_signature(chain.certificates[i], which)]
    return [*found, *judge_chain(chain)]


cdef int require_key(_Chain chain, bytes pem) except -1:
    """Raises KeyMismatch unless the private key is that of the first certificate."""
    cdef EVP_PKEY* private = read_key(pem)
    cdef int i, matching = -1
    for i in range(chain.size):
        x509.ERR_clear_error()
        if x509.X509_check_private_key(chain.certificates[i], private) == 1:
            matching = i
            break
    x509.EVP_PKEY_free(private)
    x509.ERR_clear_error()
    if matching < 0:
        raise KeyMismatch("the private key is another certificate's: write the one that belongs to the chain")
    if matching > 0:
        raise KeyMismatch(
            f"the private key is that of certificate {matching + 1} of the chain, "
            f"{subject_of(chain.certificates[matching])}: put that one first"
        )
    return 0


cdef class Certificate:
    cdef readonly tuple names
    cdef readonly object not_before
    cdef readonly object not_after
    cdef readonly str key
    cdef readonly str sha256
    cdef readonly tuple findings
    cdef readonly tuple issuers

    def __init__(self, chain: bytes, key: bytes | None = None):
        cdef _Chain read = _Chain()
        cdef X509* own
        cdef EVP_PKEY* public
        cdef int i
        read.read(chain)
        own = read.certificates[0]
        x509.ERR_clear_error()
        public = x509.X509_get0_pubkey(own)
        if public == NULL:
            x509.ERR_clear_error()
            raise TlsError(f"has a key of a kind that OpenSSL does not know: {_BETTER_KEY}")
        require_key(read, chain if key is None else key)
        names = alternative_names(own)
        common = common_name(own)
        self.names = names or ((common,) if common else ())
        self.not_before = unix_time(x509.X509_get0_notBefore(own))
        self.not_after = unix_time(x509.X509_get0_notAfter(own))
        self.key = kind_of(public)
        self.sha256 = digest_of(own)
        self.findings = tuple(judge(read, names))
        self.issuers = tuple([
            (subject_of(read.certificates[i]), unix_time(x509.X509_get0_notAfter(read.certificates[i])))
            for i in range(1, read.size)
            if not is_self_signed(read.certificates[i])
        ])
