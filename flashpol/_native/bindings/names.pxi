# The names and numbers that Python shares with the fast path. Each enum of C has its names here and nowhere else.

from flashpol._native.accept.address_limits cimport (
    A_ADMITTED, A_MAX_ADDRESS_CONNECTIONS, A_MAX_ADDRESS_RATE, A_UNTRACKED, SlotSet, TABLE_HEAD_BYTES,
    VERDICT_COUNT,
)
from flashpol._native.accept.state cimport (
    BOUNDS, BUCKET_COUNT, Counters, G_PARKED, G_SESSIONS, G_SLOW_REPLIES, O_RELAYED, O_REPLY, O_RESET, O_SERVED,
    O_TIMEOUT, OUTCOME_COUNT, P_RTMPT, P_SILENT, P_WEBSOCKET, PROTOCOL_COUNT, R_CAPACITY, R_CRASHED, R_HTTP,
    R_MAX_ADDRESS_CONNECTIONS, R_MAX_ADDRESS_RATE, R_MAX_ADDRESS_SESSIONS, R_MAX_CONNECTIONS, R_MAX_SESSIONS,
    R_MAX_SLOW_REPLIES, R_NETWORK, R_OTHER, R_PROXY_MALFORMED, R_PROXY_OVERSIZED, R_PROXY_UNTRUSTED, R_RTMP, R_RTMPE,
    R_SHUTDOWN, R_TLS, R_HTTP_MALFORMED, R_MAX_HANDSHAKES, R_ORIGIN, R_TLS_HANDSHAKE, R_TLS_ONLY, R_UPSTREAM,
    REASON_COUNT,
)
from flashpol._native.codecs.codec cimport (
    FAILURE_COUNT, HF_ALERT, HF_ALPN, HF_CAPACITY, HF_CERTIFICATE, HF_CIPHER, HF_CLOSED, HF_FLOOD, HF_MALFORMED,
    HF_NAME, HF_OLD_CLIENT, HF_TIMEOUT, HF_VERSION, VERSION_COUNT, VERSION_TLS_1_0, VERSION_TLS_1_1, VERSION_TLS_1_2,
    VERSION_TLS_1_3,
)

# Enum Reason.
cdef dict REFUSED = {
    R_HTTP: "http",
    R_TLS: "tls",
    R_RTMP: "rtmp",
    R_RTMPE: "rtmpe",
    R_OTHER: "other",
    R_CAPACITY: "capacity",
    R_SHUTDOWN: "shutdown",
    R_CRASHED: "crashed",
    R_UPSTREAM: "upstream",
    R_MAX_CONNECTIONS: "max_connections",
    R_MAX_ADDRESS_CONNECTIONS: "max_address_connections",
    R_MAX_ADDRESS_RATE: "max_address_rate",
    R_NETWORK: "network",
    R_PROXY_UNTRUSTED: "proxy_untrusted",
    R_PROXY_MALFORMED: "proxy_malformed",
    R_PROXY_OVERSIZED: "proxy_oversized",
    R_MAX_SESSIONS: "max_sessions",
    R_MAX_SLOW_REPLIES: "max_slow_replies",
    R_MAX_ADDRESS_SESSIONS: "max_address_sessions",
    R_TLS_HANDSHAKE: "tls_handshake",
    R_TLS_ONLY: "tls_only",
    R_MAX_HANDSHAKES: "max_handshakes",
    R_HTTP_MALFORMED: "http_malformed",
    R_ORIGIN: "origin",
}

REASONS = numbered(REASON_COUNT, REFUSED)
PROTOCOLS = numbered(PROTOCOL_COUNT, {number: REASONS[number] for number in range(P_SILENT)} | {
    P_SILENT: "silent", P_WEBSOCKET: "websocket", P_RTMPT: "rtmpt",
})
OUTCOMES = numbered(OUTCOME_COUNT, REFUSED | {
    O_TIMEOUT: "timeout", O_RESET: "reset", O_REPLY: "reply", O_RELAYED: "relayed", O_SERVED: "served",
})

# Enum AddressVerdict.
cdef tuple ADDRESS_VERDICTS = numbered(VERDICT_COUNT, {
    A_ADMITTED: "admitted",
    A_MAX_ADDRESS_CONNECTIONS: REASONS[R_MAX_ADDRESS_CONNECTIONS],
    A_MAX_ADDRESS_RATE: REASONS[R_MAX_ADDRESS_RATE],
    A_UNTRACKED: "untracked",
})

# Enum HandshakeFailure.
HANDSHAKE_FAILURES = numbered(FAILURE_COUNT, {
    HF_VERSION: "version",
    HF_CIPHER: "cipher",
    HF_OLD_CLIENT: "old_client",
    HF_ALPN: "alpn",
    HF_NAME: "name",
    HF_CERTIFICATE: "certificate",
    HF_ALERT: "alert",
    HF_MALFORMED: "malformed",
    HF_FLOOD: "flood",
    HF_CLOSED: "closed",
    HF_TIMEOUT: "timeout",
    HF_CAPACITY: "capacity",
})
# Enum TlsVersion.
TLS_VERSIONS = numbered(VERSION_COUNT, {
    VERSION_TLS_1_0: "TLSv1",
    VERSION_TLS_1_1: "TLSv1.1",
    VERSION_TLS_1_2: "TLSv1.2",
    VERSION_TLS_1_3: "TLSv1.3",
})

BUCKETS = tuple([bound / 1e9 for bound in BOUNDS[:BUCKET_COUNT - 1]])
ADDRESS_TABLE_HEAD = TABLE_HEAD_BYTES
ADDRESS_TABLE_SET = sizeof(SlotSet)
BLOCK_SIZE = (sizeof(Counters) + 63) // 64 * 64     # whole cache lines: no two writers share one


cdef dict layout_of_counters():
    cdef Counters block
    cdef char* begin = <char*>&block
    return laid_out(sizeof(Counters), [
        ("accepted", <char*>&block.accepted - begin, sizeof(block.accepted)),
        ("refused", <char*>&block.refused - begin, sizeof(block.refused)),
        ("relayed", <char*>&block.relayed - begin, sizeof(block.relayed)),
        ("served", <char*>&block.served - begin, sizeof(block.served)),
        ("timeouts", <char*>&block.timeouts - begin, sizeof(block.timeouts)),
        ("resets", <char*>&block.resets - begin, sizeof(block.resets)),
        ("reply_bytes", <char*>&block.reply_bytes - begin, sizeof(block.reply_bytes)),
        ("accept_errors", <char*>&block.accept_errors - begin, sizeof(block.accept_errors)),
        ("untracked", <char*>&block.untracked - begin, sizeof(block.untracked)),
        ("duration_ns", <char*>&block.duration_ns - begin, sizeof(block.duration_ns)),
        ("buckets", <char*>&block.buckets - begin, sizeof(block.buckets)),
        ("handshakes", <char*>&block.handshakes - begin, sizeof(block.handshakes)),
        ("resumed", <char*>&block.resumed - begin, sizeof(block.resumed)),
        ("handshake_failures", <char*>&block.handshake_failures - begin, sizeof(block.handshake_failures)),
        ("unknown_names", <char*>&block.unknown_names - begin, sizeof(block.unknown_names)),
        ("truncated", <char*>&block.truncated - begin, sizeof(block.truncated)),
        ("handshake_ns", <char*>&block.handshake_ns - begin, sizeof(block.handshake_ns)),
        ("handshake_buckets", <char*>&block.handshake_buckets - begin, sizeof(block.handshake_buckets)),
        ("open", <char*>&block.open - begin, sizeof(block.open)),
        ("parked", <char*>&block.by_state[G_PARKED] - begin, sizeof(block.by_state[G_PARKED])),
        ("slow_replies", <char*>&block.by_state[G_SLOW_REPLIES] - begin, sizeof(block.by_state[G_SLOW_REPLIES])),
        ("sessions", <char*>&block.by_state[G_SESSIONS] - begin, sizeof(block.by_state[G_SESSIONS])),
        ("tls", <char*>&block.tls - begin, sizeof(block.tls)),
        ("handshaking", <char*>&block.handshaking - begin, sizeof(block.handshaking)),
    ])


LAYOUT = layout_of_counters()
