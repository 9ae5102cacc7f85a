"""TLS for the probe: what clients offer, the record of a handshake, what is wrong with a certificate.

    offers     the TLS versions and suites of the clients    handshake  the record of a handshake: plain values
    channel    a connection inside TLS; imports ssl          x509       the fields of a certificate
    judgement  what is wrong, for which client; uses no socket

Only `channel` imports ssl, which takes 10 ms, and only a probe that speaks TLS imports `channel`.
"""
