# The deadlines of conversations.

from libc.stdint cimport int32_t

from flashpol._native.common.deadlines cimport dequeue, enqueue, Link
from flashpol._native.relay.state cimport Conversation, Core, Q_IDLE


cdef inline void wait(Core* core, int32_t i, int which) noexcept nogil:
    """Unless that queue's deadline never comes."""
    if core.queues[which].duration:
        enqueue(&core.queues[which], &core.table[i].links[which], i, core.now)


cdef inline void wait_no_more(Core* core, int32_t i, int which) noexcept nogil:
    cdef Link* link = &core.table[i].links[which]
    if link.deadline:
        dequeue(&core.queues[which], link)
        link.deadline = 0


cdef inline void touch(Core* core, int32_t i) noexcept nogil:
    """Bytes have moved."""
    cdef Conversation* c = &core.table[i]
    if core.now - c.active > core.queues[Q_IDLE].duration // 17:
        wait_no_more(core, i, Q_IDLE)
        wait(core, i, Q_IDLE)
        c.active = core.now
