# The fast path at a glance. Its C is in _core/, one file a concern, all of it inlined into this one extension:
#
#   accepting    burst: accept a handful of those that wait, advance each; again until none waits or a bound is reached
#   admission    judge_connection, judge_client: why somebody is refused by where he comes from, or R_NONE
#   networks     allowed: a look among networks, from tables of serving/networks.py
#   census       enter, leave: who is inside, in all and by address, in memory that the workers share
#   proxy        proxy_feed: recogniser of PROXY headers
#   connection   advance: one read, one verdict (the only reader of a connection): reply, park, refuse, close
#                reply: one send, reply and FIN in one segment; counted and timed here and nowhere else
#                hand_over: to a greenlet that relays it, with every byte that was read
#                collect: ready or overdue records, bounded per wake-up
#   match        match_feed: the one recogniser of the request; a byte of state
#                sniff: names what is not a policy request (http, tls, rtmp, …), from a table of worker/protocols.py
#   deadlines    the clock, queues in which all wait equally long, one timer; the same for _pump
#   samples      decided: where a connection's outcome is known; of the few that are sampled, a log line is due
#   checks       broken: what must hold between two calls, for tests
#   state        what is kept in memory: Counters, Listener, Record, Core
#   system       what the kernel and the C library offer
#
# Every C function is `noexcept nogil`: nothing in there can raise, so nothing can stop a watcher. _fastpath.pyx has the
# picture of a connection's states, and the classes that Python sees.

from libc.stdint cimport uint8_t

from flashpol._native.accept.address_limits cimport CensusView
from flashpol._native.accept.ip_ranges cimport NetworkTable, Ranges
from flashpol._native.accept.match cimport Answer
from flashpol._native.accept.proxy cimport ProxyParser
from flashpol._native.accept.state cimport Core, Listener, Record


cdef class RequestMatcher:
    cdef uint8_t _matched
    cdef bint _terminated
    cdef Answer _answer
    cdef bint _after_cr             # a LF that comes next belongs to the request
    cdef readonly Py_ssize_t consumed


cdef class ProxyHeader:
    cdef ProxyParser _header
    cdef Answer _answer
    cdef readonly Py_ssize_t consumed


cdef class Networks:
    cdef NetworkTable table

    cdef int _fill(self, Ranges* ranges, bint first, list turns) except -1


cdef class AddressLimits:
    cdef CensusView view
    cdef unsigned char[::1] memory


cdef class PolicyReply:
    cdef readonly bytes data


cdef class ConnectionTable:
    cdef Core core
    cdef object _on_slow_reply
    cdef object _on_error
    cdef object _on_access
    cdef AddressLimits _address_limits
    cdef object _on_session
    cdef list _acceptors            # keeps alive what core.listeners points to

    cdef int _begin_queue(self, int which, double duration) except -1
    cdef int _sample(self, double share) except -1
    cdef int _tell(self) except -1
    cdef int _add_signature(self, bytes prefix, int reason) except -1
    cdef int _call_hooks(self) except -1
    cdef int _hand_off(self) except -1
    cdef int _relay(self) except -1
    cdef void _forget_handed(self) noexcept
    cdef int _report(self, error) except -1
    cdef Record* _conversation(self, int fd) except NULL
    cdef int _expect_headers(self) except -1


cdef class Acceptor:
    cdef int fd
    cdef Listener listener
    cdef ConnectionTable connection_table
    cdef PolicyReply reply
    cdef unsigned char[::1] block
    cdef object _on_exhausted
    cdef Networks _networks
    cdef Networks _proxies
