from flashpol._native.accept.address_limits cimport Entry, HEAD_BYTES, WAYS
from flashpol._native.accept.state cimport BOUNDS, BUCKET_COUNT, Counters, P_SILENT, PROTOCOL_COUNT, REASON_COUNT

cdef enum:
    MAX_RECORDS = 1 << 20       # where RLIMIT_NOFILE is unlimited: 56 MB of address space, touched as it is used
    INDEX_BITS = 16             # of the index of a table of networks at most: 256 KB

cdef bytes HTTP_BODY = b"This port answers socket policy requests (<policy-file-request/>), not HTTP.\n"
cdef bytes HTTP_BYTES = b"".join([
    b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Type: text/plain\r\n",
    b"Content-Length: %d\r\n\r\n" % len(HTTP_BODY), HTTP_BODY,
])

BUCKETS = tuple([bound / 1e9 for bound in BOUNDS[:BUCKET_COUNT - 1]])
REASONS = (
    "http", "tls", "rtmp", "rtmpe", "other", "capacity", "shutdown", "crashed", "upstream", "max_connections",
    "max_address_connections", "max_address_rate", "network", "proxy_untrusted", "proxy_malformed", "proxy_oversized",
    "max_sessions", "max_slow_replies",
)
PROTOCOLS = (*REASONS[:P_SILENT], "silent")
OUTCOMES = (*REASONS, "timeout", "reset", "reply", "relayed")
ADDRESS_TABLE_HEAD = HEAD_BYTES
ADDRESS_TABLE_SET = WAYS * sizeof(Entry)
BLOCK_SIZE = (sizeof(Counters) + 63) // 64 * 64     # whole cache lines: no two writers share one

cdef Counters SAMPLE
LAYOUT = {                                          # field: (offset in bytes, number of 64-bit words)
    "accepted": (<char*>&SAMPLE.accepted - <char*>&SAMPLE, 1),
    "refused": (<char*>&SAMPLE.refused - <char*>&SAMPLE, REASON_COUNT),
    "relayed": (<char*>&SAMPLE.relayed - <char*>&SAMPLE, PROTOCOL_COUNT),
    "timeouts": (<char*>&SAMPLE.timeouts - <char*>&SAMPLE, 1),
    "resets": (<char*>&SAMPLE.resets - <char*>&SAMPLE, 1),
    "reply_bytes": (<char*>&SAMPLE.reply_bytes - <char*>&SAMPLE, 1),
    "accept_errors": (<char*>&SAMPLE.accept_errors - <char*>&SAMPLE, 1),
    "untracked": (<char*>&SAMPLE.untracked - <char*>&SAMPLE, 1),
    "duration_ns": (<char*>&SAMPLE.duration_ns - <char*>&SAMPLE, 1),
    "buckets": (<char*>&SAMPLE.buckets - <char*>&SAMPLE, BUCKET_COUNT),
    "open": (<char*>&SAMPLE.open - <char*>&SAMPLE, 1),
    "parked": (<char*>&SAMPLE.parked - <char*>&SAMPLE, 1),
    "slow_replies": (<char*>&SAMPLE.slow_replies - <char*>&SAMPLE, 1),
    "sessions": (<char*>&SAMPLE.sessions - <char*>&SAMPLE, 1),
}
