# The access log: a share of the connections is sampled when they are accepted, and told of once their outcome is known.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from flashpol._native.accept.state cimport Core, Record, Sample, SAMPLE_BURST
from flashpol._native.common.system cimport sockaddr_in6

cdef enum:
    SAMPLE_WINDOW = 10          # seconds, for SAMPLE_BURST


cdef inline bint chosen(Core* core) noexcept nogil:
    """The dice are thrown. Clients cannot gain by guessing them, so xorshift32 (Marsaglia 2003) will do."""
    core.random ^= core.random << 13
    core.random ^= core.random >> 17
    core.random ^= core.random << 5
    return core.random <= core.share


cdef inline uint16_t sample(Core* core, uint16_t listener, sockaddr_in6* peer, int64_t now) noexcept nogil:
    """Remember a connection until its outcome is `told`. 0: more were sampled lately than the log is to hold."""
    cdef uint16_t number = core.spare
    if now >= core.window:
        core.window = now + SAMPLE_WINDOW * <int64_t>1_000_000_000
        core.window_left = SAMPLE_BURST
    if core.window_left == 0 or number == 0:
        core.left_out += 1
        return 0
    core.window_left -= 1
    core.spare = core.samples[number].next
    core.samples[number].listener = listener
    core.samples[number].peer = peer[0]
    return number


cdef inline void told(Core* core, uint16_t number, uint8_t outcome, int64_t duration, uint32_t sent) noexcept nogil:
    """Queue a sample for the hook."""
    cdef Sample* entry = &core.samples[number]
    entry.outcome = outcome
    entry.duration = duration
    entry.sent = sent
    entry.next = 0
    if core.told_next == 0:
        core.told_next = number
    else:
        core.samples[core.told_last].next = number
    core.told_last = number


cdef inline void decided(Core* core, int fd, uint8_t outcome) noexcept nogil:
    """The outcome of this connection has been counted."""
    cdef Record* record = &core.records[fd]
    if record.sample != 0:
        told(core, record.sample, outcome, now_ns() - record.accepted_at, record.progress)
        record.sample = 0
