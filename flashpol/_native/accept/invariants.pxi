# What must hold between two calls. Tests check it: every record there can be is compared with the table of states.

from libc.stdint cimport int64_t, uint32_t

from flashpol._native.accept.state cimport (
    Core, GAUGE_COUNT, QUEUE_COUNT, Record, S_FREE, S_FRESH, STATE_COUNT, StateRow,
)


cdef const char* find_queue_violation(Core* core, int which, int64_t* length) noexcept nogil:
    """What is wrong with a deadline queue, NULL if nothing. `length` is the number of its records."""
    cdef int fd = core.queues[which].head, before = -1
    cdef int64_t deadline = 0
    cdef Record* record
    length[0] = 0
    while fd >= 0:
        record = &core.records[fd]
        if record.state >= STATE_COUNT or core.states[record.state].queue != which:
            return b"a record is in a queue that is not the one of its state"
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


cdef const char* find_record_violation(Core* core, const Record* record) noexcept nogil:
    """What is wrong with one record of a connection, NULL if nothing."""
    cdef const StateRow* row
    if record.state >= STATE_COUNT:
        return b"a record has no state"
    if record.state == S_FRESH:
        return b"a connection was accepted and not handled"
    if record.listener >= core.listener_count:
        return b"a record belongs to no listener"
    row = &core.states[record.state]
    if record.watched and not row.watched:
        return b"a descriptor is in the epoll set in a state without a watch"
    # The kernel may refuse a watch: `watch` counts that as an accept error.
    if row.watched and not record.watched and core.listeners[record.listener].counters.accept_errors == 0:
        return b"a descriptor is not in the epoll set in a state with a watch"
    return NULL


cdef int64_t count_samples(Core* core, uint32_t number) noexcept nogil:
    """Length of a list of samples."""
    cdef int64_t count = 0
    while number != 0 and count < core.used_samples:
        count += 1
        number = core.samples[number].next
    return count


cdef const char* find_violation(Core* core, int64_t* live) noexcept nogil:
    """What is wrong, NULL if nothing. `live` is the number of connections."""
    cdef int64_t open = 0, length, sampled = 0
    cdef int64_t[QUEUE_COUNT + 1] queued                # records whose state has that queue, or Q_NONE
    cdef int64_t[GAUGE_COUNT + 1] counted               # records whose state has that gauge, or G_NONE
    cdef size_t fd
    cdef int i, gauge
    cdef const char* wrong
    cdef Record* record
    live[0] = 0
    for i in range(QUEUE_COUNT + 1):
        queued[i] = 0
    for i in range(GAUGE_COUNT + 1):
        counted[i] = 0
    for fd in range(core.capacity):
        record = &core.records[fd]
        if record.state == S_FREE:
            if record.watched:
                return b"a closed descriptor is in the epoll set"
            continue
        wrong = find_record_violation(core, record)
        if wrong != NULL:
            return wrong
        live[0] += 1
        sampled += record.sample != 0
        queued[core.states[record.state].queue] += 1
        counted[core.states[record.state].gauge] += 1
    for i in range(QUEUE_COUNT):
        wrong = find_queue_violation(core, i, &length)
        if wrong != NULL:
            return wrong
        if length != queued[i]:
            return b"a record is not in the queue of its state"
    for i in range(core.listener_count):
        open += core.listeners[i].counters.open
        for gauge in range(GAUGE_COUNT):
            counted[gauge] -= core.listeners[i].counters.by_state[gauge]
    if open != live[0]:
        return b"the gauges differ from the records"
    for gauge in range(GAUGE_COUNT):
        if counted[gauge] != 0:
            return b"the gauges differ from the records"
    if core.samples != NULL:
        sampled += count_samples(core, core.free_samples) + count_samples(core, core.done_samples)
        if sampled != <int64_t>core.used_samples - 1:
            return b"a sample is lost"
    return NULL
