# The pump at a glance: pairs of descriptors. Its C is in _relaying/, one file a concern, inlined into this extension:
#
#   connecting   begin: connect, send what was read before; established, or why not
#   moving       move: one direction; read, send at once, keep only what was not taken (the only reader and writer of
#                bytes); pass on FIN and RST
#   buffers      what was not taken: a bounded number of them for all
#   watching     observe: ask epoll for what this conversation can act on, and for nothing else
#   waiting      deadlines, in the queues of _core/deadlines
#   collecting   collect: ready or overdue conversations, bounded per wake-up
#   ends         fail, finish: each conversation has one of them; counted, unwatched, given to its greenlet
#   records      which entries of the table are free, and which are over
#   counting     the block of counters in shared memory, and the bounds of its histograms
#   state        what is kept in memory: Flow, Conversation, Pool, Core
#
# Every C function is `noexcept nogil`: nothing in there can raise, so nothing can stop a watcher. _pump.pyx has the
# picture of a conversation's states, and the classes that Python sees.

from libc.stdint cimport uint16_t, uint32_t

from flashpol._native.common.system cimport sockaddr_storage, socklen_t
from flashpol._native.relay.counters cimport Counters
from flashpol._native.relay.state cimport Core


cdef class Destination:
    cdef sockaddr_storage _storage
    cdef socklen_t _size
    cdef int _keepalive
    cdef unsigned char[::1] _block
    cdef Counters* _counters
    cdef readonly object address
    cdef readonly Py_ssize_t open
    cdef readonly uint32_t failures

    cdef int _set_path(self, bytes path) except -1
    cdef int _set_ip(self, bytes host, uint16_t port, uint32_t scope) except -1


cdef class Pump:
    cdef Core core
    cdef object _sleep
    cdef object _on_error

    cdef int _begin_queue(self, int which, double duration) except -1
    cdef int _wake(self) except -1
