# The pump: its files and its classes.
#
# The C is in _native/, included by _pump.pyx and compiled into this one extension. Files named .pxd declare structs,
# enums and constants; files named .pxi have the functions.
#
#   common/deadlines        deadline queues: all entries wait equally long
#   common/poller           an epoll set with one timer for all queues
#   common/share            a limited number of places, of which each member has a reserve
#   common/system           what the kernel and the C library offer
#   codecs/codec            what a codec is: the table of its functions
#   relay/state             what is kept in memory: Flow, Session, Pool, Core
#   relay/counters          the block of counters in shared memory, and the bounds of its histograms
#   relay/buffers           a limited number of buffers for bytes that a side did not take
#   relay/readiness         update_interest: which events epoll reports; start_deadline, stop_deadline, restart_idle
#   relay/activity          which sides have spoken; cut_by_client: evicts the session of a client's descriptor
#   relay/ports             the account of local ports: take_port, leave_port, take_left
#   relay/close             fail_connect, end_session: the one end of each session; the lists of free and closed ones
#   relay/convert           read_and_convert: decodes what a client sends, encodes what it gets; on_tick: pings;
#                           pass_closing: the closing handshake of WebSocket
#   relay/transfer          transfer: one direction; the only reader and writer of bytes
#   relay/tunnel            sessions whose client has no socket: read_from_tunnel, read_for_tunnel, wake_session_of
#   relay/connect           begin_connect: connect and send what was read before; on_connected
#   relay/dispatch          dispatch: handles ready and overdue sessions, a limited number in one wake-up
#   relay/invariants        find_violation: what must hold between two calls, for tests
#   bindings/tables         checks the names of enums and the layout of Counters
#   bindings/share          Places, PlacesMember, Place
#
# Every C function is `noexcept nogil`: none can raise, so none can end a watcher of the event loop. The methods below
# say in their declaration how they report an exception.

from libc.stdint cimport int32_t, uint32_t, uint64_t

from flashpol._fastpath cimport Account
from flashpol._native.common.share cimport HeldPlace, Member, Share
from flashpol._native.relay.counters cimport Counters
from flashpol._native.relay.ports cimport Ports, Target
from flashpol._native.relay.state cimport Core


cdef class Places:
    cdef Share share


cdef class PlacesMember:
    cdef Member member
    cdef Places _places                 # keeps the share alive


cdef class Place:
    cdef HeldPlace held
    cdef PlacesMember _member           # keeps alive what `held` points to


# The account of a pump's local ports. Destinations refer to it and not to the pump, which has descriptors.
cdef class PortAccount:
    cdef Ports ports
    cdef dict blocks                    # address -> block: keeps alive what ports in TIME-WAIT are counted in


cdef class Destination:
    cdef Target target
    cdef unsigned char[::1] _block      # keeps alive what `_counters` points to
    cdef Counters* _counters
    cdef PortAccount _account           # of the routes, None before the first session
    cdef readonly object address
    cdef readonly Py_ssize_t open
    cdef readonly uint32_t failures     # in a row

    cdef int _set_path(self, bytes path) except -1
    cdef int _set_sources(self, tuple sources) except -1
    cdef int _use_routes(self, PortAccount account) except -1
    cdef void _leave_routes(self) noexcept


cdef class Pump:
    cdef Core core
    cdef object _sleep, _parent
    cdef object _on_error
    cdef Account _account               # keeps alive what core.account points to
    cdef PortAccount _ports
    cdef bint _cut                      # the process ends: `ready` wakes all greenlets at once

    cdef int _init_queue(self, int which, double duration) except -1
    cdef void _drop_owners(self) noexcept
    cdef int32_t _begin(self, int fd, Destination to, bytes first, Py_ssize_t header_size, Place place,
                        uint64_t address, str client_address) except -2
    cdef int _wake(self, int32_t left) except -1
