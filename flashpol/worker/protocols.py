"""The table of protocols that are told apart by their first bytes.

`_fastpath.sniff` walks it in C and answers as every recogniser does: this one, none of these, or not enough bytes yet.
A row is (first bytes, name): one of `_fastpath.REASONS` under which such a connection is refused, or counted when it is
relayed. What else is to be done with a protocol one day begins here.
"""

SIGNATURES: tuple[tuple[bytes, str], ...] = (
    # RFC 9110 section 9 and RFC 5789; PRI opens HTTP/2 (RFC 9113 section 3.4).
    (b"GET ", "http"),
    (b"HEAD ", "http"),
    (b"POST ", "http"),
    (b"PUT ", "http"),
    (b"DELETE ", "http"),
    (b"CONNECT ", "http"),
    (b"OPTIONS ", "http"),
    (b"TRACE ", "http"),
    (b"PATCH ", "http"),
    (b"PRI * ", "http"),
    # A TLS record of type handshake, major version 3 (RFC 8446 section 5.1).
    (b"\x16\x03", "tls"),
    # C0 of a handshake, which C1 follows (Adobe's RTMP specification 1.0, section 5.2.2); 6 is its encrypted kin.
    (b"\x03", "rtmp"),
    (b"\x06", "rtmpe"),
)
