# What certificate.pxi uses of OpenSSL: PEM, X.509, keys. Its types are in openssl.pxd.

from libc.stddef cimport size_t
from libc.stdint cimport uint32_t
from libc.time cimport tm

from flashpol._native.tls.openssl cimport BIO, EVP_PKEY, X509

cdef extern from "<time.h>" nogil:
    long long timegm(tm* parts)

cdef extern from "<openssl/bio.h>" nogil:
    BIO* BIO_new(const BIO_METHOD* kind)
    BIO* BIO_new_mem_buf(const void* data, int size)        # reads `data` where it is
    int BIO_free(BIO* bio)
    ctypedef struct BIO_METHOD
    const BIO_METHOD* BIO_s_mem()
    long BIO_get_mem_data(BIO* bio, char** data)

cdef extern from "<openssl/err.h>" nogil:
    void ERR_clear_error()
    unsigned long ERR_peek_last_error()
    int ERR_GET_LIB(unsigned long code)
    int ERR_GET_REASON(unsigned long code)
    int ERR_LIB_PEM

cdef extern from "<openssl/pem.h>" nogil:
    # `ask` is a pem_password_cb*: (buffer, its size, writing, context) -> length of the passphrase.
    X509* PEM_read_bio_X509(BIO* bio, X509** into, int (*ask)(char*, int, int, void*) noexcept, void* context)
    EVP_PKEY* PEM_read_bio_PrivateKey(
        BIO* bio, EVP_PKEY** into, int (*ask)(char*, int, int, void*) noexcept, void* context
    )
    int PEM_R_NO_START_LINE

cdef extern from "<openssl/evp.h>" nogil:
    ctypedef struct EVP_MD
    const EVP_MD* EVP_sha256()
    void EVP_PKEY_free(EVP_PKEY* key)
    int EVP_PKEY_is_a(const EVP_PKEY* key, const char* name)
    const char* EVP_PKEY_get0_type_name(const EVP_PKEY* key)
    int EVP_PKEY_get_bits(const EVP_PKEY* key)
    int EVP_PKEY_get_group_name(const EVP_PKEY* key, char* name, size_t size, size_t* length)

cdef extern from "<openssl/asn1.h>" nogil:
    ctypedef struct ASN1_STRING
    ctypedef struct ASN1_TIME
    ctypedef struct ASN1_OBJECT
    const unsigned char* ASN1_STRING_get0_data(const ASN1_STRING* text)
    int ASN1_STRING_length(const ASN1_STRING* text)
    int ASN1_STRING_to_UTF8(unsigned char** into, const ASN1_STRING* text)
    int ASN1_TIME_to_tm(const ASN1_TIME* time, tm* into)
    int OBJ_obj2nid(const ASN1_OBJECT* object)
    void OPENSSL_free(void* memory)

cdef extern from "<openssl/objects.h>" nogil:
    int NID_md5, NID_sha1, NID_commonName, NID_subject_alt_name, NID_info_access, NID_ad_ca_issuers

cdef extern from "<openssl/x509.h>" nogil:
    ctypedef struct X509_NAME
    ctypedef struct X509_NAME_ENTRY
    void X509_free(X509* certificate)
    X509_NAME* X509_get_subject_name(const X509* certificate)
    X509_NAME* X509_get_issuer_name(const X509* certificate)
    int X509_NAME_get_index_by_NID(const X509_NAME* name, int nid, int after)
    X509_NAME_ENTRY* X509_NAME_get_entry(const X509_NAME* name, int index)
    ASN1_STRING* X509_NAME_ENTRY_get_data(const X509_NAME_ENTRY* entry)
    int X509_NAME_print_ex(BIO* bio, const X509_NAME* name, int indent, unsigned long flags)
    unsigned long XN_FLAG_RFC2253
    const ASN1_TIME* X509_get0_notBefore(const X509* certificate)
    const ASN1_TIME* X509_get0_notAfter(const X509* certificate)
    EVP_PKEY* X509_get0_pubkey(const X509* certificate)
    int X509_check_private_key(const X509* certificate, const EVP_PKEY* key)
    int X509_digest(const X509* certificate, const EVP_MD* kind, unsigned char* into, unsigned int* size)
    int X509_get_signature_info(X509* certificate, int* digest, int* key, int* bits, uint32_t* flags)
    int X509_self_signed(X509* certificate, int verify)
    int X509_verify(X509* certificate, EVP_PKEY* key)
    void* X509_get_ext_d2i(const X509* certificate, int nid, int* critical, int* index)

cdef extern from "<openssl/x509v3.h>" nogil:
    ctypedef struct GENERAL_NAMES
    ctypedef struct AUTHORITY_INFO_ACCESS
    ctypedef struct ACCESS_DESCRIPTION:
        ASN1_OBJECT* method
    ctypedef struct GENERAL_NAME
    int sk_GENERAL_NAME_num(const GENERAL_NAMES* names)
    GENERAL_NAME* sk_GENERAL_NAME_value(const GENERAL_NAMES* names, int index)
    const void* GENERAL_NAME_get0_value(const GENERAL_NAME* name, int* kind)
    void GENERAL_NAMES_free(GENERAL_NAMES* names)
    int sk_ACCESS_DESCRIPTION_num(const AUTHORITY_INFO_ACCESS* places)
    ACCESS_DESCRIPTION* sk_ACCESS_DESCRIPTION_value(const AUTHORITY_INFO_ACCESS* places, int index)
    void AUTHORITY_INFO_ACCESS_free(AUTHORITY_INFO_ACCESS* places)
    int GEN_DNS, GEN_IPADD
    int X509_check_issued(X509* issuer, X509* subject)
    int X509_check_purpose(X509* certificate, int purpose, int ca)
    int X509_PURPOSE_SSL_SERVER
    int X509_V_OK
