# What must hold between two wake-ups. For tests: a look at every record there can be.

from libc.stdint cimport int64_t

from flashpol._native.accept.state cimport (
    Core, Q_GRACE, Q_LINGER, Q_NONE, QUEUE_COUNT, Record, S_FREE, S_GRACE, S_LINGER, S_REQUEST, S_SESSION, S_SLOW_REPLY,
    SAMPLE_COUNT,
)


cdef inline bint waits_in(int state, int queue) noexcept nogil:
    """Records of this state may wait in this queue."""
    if queue == Q_LINGER:
        return state == S_LINGER
    # On a shared port first bytes without a name wait as long as a request for its terminator.
    return state == S_REQUEST or (state == S_GRACE and queue == Q_GRACE)


cdef inline const char* broken_queue(Core* core, int which, int64_t* length) noexcept nogil:
    """What is wrong with a deadline queue, NULL if nothing; its length."""
    cdef int fd = core.queues[which].head, before = -1
    cdef int64_t deadline = 0
    cdef Record* record
    length[0] = 0
    while fd >= 0:
        record = &core.records[fd]
        if record.queue != which or not waits_in(record.state, which):
            return b"a record waits in a queue that is not its state's"
        if record.link.prev != before or record.link.deadline < deadline:
            return b"a queue is out of order"
        if length[0] > <int64_t>core.capacity:
            return b"a queue is a ring"
        length[0] += 1
        deadline = record.link.deadline
        before = fd
        fd = record.link.next
    if core.queues[which].tail != before:
        return b"a queue does not end at its tail"
    return NULL


cdef inline const char* broken(Core* core, int64_t* live) noexcept nogil:
    """What is wrong with what is kept in memory, NULL if nothing; the number of connections that are kept."""
    cdef int64_t open = 0, parked = 0, slow_replies = 0, sessions = 0, queued = 0, length, sampled = 0
    cdef size_t fd
    cdef int i, number
    cdef const char* wrong
    cdef Record* record
    live[0] = 0
    for i in range(QUEUE_COUNT):
        wrong = broken_queue(core, i, &length)
        if wrong != NULL:
            return wrong
        queued += length
    for fd in range(core.capacity):
        record = &core.records[fd]
        if record.state == S_FREE:
            continue
        live[0] += 1
        sampled += record.sample != 0
        if record.state == S_SLOW_REPLY or record.state == S_SESSION:
            slow_replies += record.state == S_SLOW_REPLY
            sessions += record.state == S_SESSION
            if record.queue != Q_NONE:
                return b"a conversation waits in a queue"
        elif record.queue == Q_NONE:
            return b"a connection has no deadline"
        else:
            parked += 1
    if parked != queued:
        return b"a queue holds what is no record"
    for i in range(core.listener_count):
        open += core.listeners[i].counters.open
        parked -= core.listeners[i].counters.parked
        slow_replies -= core.listeners[i].counters.slow_replies
        sessions -= core.listeners[i].counters.sessions
    if open != live[0] or parked != 0 or slow_replies != 0 or sessions != 0:
        return b"the gauges differ from the records"
    if core.samples != NULL:
        for i in range(2):
            number = core.told_next if i else core.spare
            while number != 0:
                sampled += 1
                number = core.samples[number].next
        if sampled != SAMPLE_COUNT - 1:
            return b"a sample is lost"
    return NULL
