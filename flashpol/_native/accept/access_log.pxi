# The access log. Connections are sampled at accept, all or a share of them, and logged when the outcome is known.

from libc.stdint cimport int64_t, uint8_t, uint16_t, uint32_t

from flashpol._native.accept.state cimport Core, O_RELAYED, PROTOCOL_COUNT, Record, Sample, SAMPLE_BURST
from flashpol._native.common.system cimport sockaddr_in6

cdef enum:
    SAMPLE_WINDOW = 10          # seconds, for SAMPLE_BURST


cdef inline bint should_sample(Core* core) noexcept nogil:
    """Decide by xorshift32 (Marsaglia 2003). A client that predicted it would gain nothing."""
    core.random ^= core.random << 13
    core.random ^= core.random >> 17
    core.random ^= core.random << 5
    return core.random <= core.sample_rate


cdef inline uint32_t begin_sample(Core* core, uint16_t listener, sockaddr_in6* peer, int64_t now) noexcept nogil:
    """Keep the client's address until the outcome is known. Returns the sample's number.

    0: there is no room for one more, or a share is sampled and SAMPLE_BURST of this window have been.
    """
    cdef uint32_t number = core.free_samples
    if now >= core.window_end:
        core.window_end = now + SAMPLE_WINDOW * <int64_t>1_000_000_000
        core.window_room = SAMPLE_BURST
    if (core.window_room == 0 and not core.sample_all) or (number == 0 and core.used_samples == core.sample_count):
        core.left_out += 1
        return 0
    core.window_room -= core.window_room != 0
    if number != 0:
        core.free_samples = core.samples[number].next
    else:
        number = core.used_samples
        core.used_samples += 1
    core.samples[number].listener = listener
    core.samples[number].peer = peer[0]
    core.samples[number].protocol = PROTOCOL_COUNT
    core.samples[number].tls = False
    return number


cdef inline void enqueue_sample(
    Core* core, uint32_t number, uint8_t outcome, int64_t duration, uint32_t sent,
) noexcept nogil:
    """Append a sample to those that ConnectionTable passes to its hook."""
    cdef Sample* sample = &core.samples[number]
    sample.outcome = outcome
    sample.duration = duration
    sample.sent = sent
    sample.next = 0
    if core.done_samples == 0:
        core.done_samples = number
    else:
        core.samples[core.done_samples_last].next = number
    core.done_samples_last = number


cdef inline void record_outcome(Core* core, int fd, uint8_t outcome) noexcept nogil:
    """Call this where an outcome is counted. It costs one comparison for a connection that is not sampled."""
    cdef Record* record = &core.records[fd]
    if record.sample != 0:
        core.samples[record.sample].tls = record.has_codec and tls_of(core.account.codecs[fd]) != NULL
        if outcome == O_RELAYED:
            core.samples[record.sample].protocol = record.protocol
        enqueue_sample(core, record.sample, outcome, now_ns() - record.accepted_at, record.progress)
        record.sample = 0
