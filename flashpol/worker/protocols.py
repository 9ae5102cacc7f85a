"""The protocols that are recognised by their first bytes.

`sniff` in `_native/accept/match.pxi` compares input with the table. Its verdict is a match, something else, or that
more bytes are needed. A row is (first bytes, name). The name is one of `_fastpath.REASONS`: such a connection is
refused for that reason, or counted under it when it is relayed. At most 32 rows of 1 to 8 bytes fit.
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
    # C0 of a handshake (Adobe's RTMP specification 1.0, section 5.2.2). 3 is RTMP, 6 its encrypted variant RTMPE.
    (b"\x03", "rtmp"),
    (b"\x06", "rtmpe"),
)
