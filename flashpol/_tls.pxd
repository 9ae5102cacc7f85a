# TLS, the only extension that is linked with OpenSSL: its files and its classes. A machine without OpenSSL's headers
# builds flashpol without it.
#
#   tls/openssl             what is used of OpenSSL
#   tls/certificate         Certificate: reads and judges a chain and its key
#   tls/context             the contexts of OpenSSL, and the certificates of a listener by name
#   tls/codec               the codec: handshake, decode, encode, close_notify

from flashpol._fastpath cimport CodecFactory
