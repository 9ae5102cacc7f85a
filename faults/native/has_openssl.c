/* Compiles where the headers and libraries of OpenSSL 3.0 or later are. */
#include <openssl/ssl.h>
#if OPENSSL_VERSION_NUMBER < 0x30000000L
#error too old
#endif

int main(void) { return SSL_CTX_new(TLS_client_method()) == 0; }
