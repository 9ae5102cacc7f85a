# Tunnel sessions: their files and their class.
#
# The C is in _native/, included by _tunnel.pyx and compiled into this one extension. Files named .pxd declare structs,
# enums and constants; files named .pxi have the functions.
#
#   common/deadlines        deadline queues: all entries wait equally long
#   common/poller           an epoll set with one timer for all queues
#   common/system           what the kernel and the C library offer
#   codecs/codec            what a codec is; TunnelType: how the pump knows the client's side of a session
#   codecs/gate             what the fast path and the tunnel sessions know of each other
#   http/tunnel_path        the kinds of requests
#   relay/counters          how a session can end
#   tunnel/state            what is kept in memory: Origin, Early, Piece, TunnelSession, Line, TunnelCore
#   tunnel/sessions         ids; begin_session, open_session, end_requests, release_session: the life of a session
#   tunnel/window           on_request: requests in the order of their numbers, and their replies; what the pump calls
#   tunnel/lines            requests of other workers, and for them: forward, on_message; open_line, close_line
#   tunnel/requests         what the fast path calls; dispatch: lines that are ready and deadlines, a limited number
#   tunnel/invariants       find_violation: what must hold between two calls, for tests
#   bindings/tables         checks the names of enums and the layout of TunnelCounters
#
# Every C function is `noexcept nogil`: none can raise, so none can end a watcher of the event loop.

from cython cimport final

from flashpol._fastpath cimport Account, TunnelGate
from flashpol._native.tunnel.state cimport TunnelCore


@final
cdef class Tunnels(TunnelGate):
    cdef TunnelCore core
    cdef Account _account               # keeps alive what core.account points to
    cdef list _blocks                   # and core.listener_counters
