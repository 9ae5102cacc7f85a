# The fast path: its files and its classes.
#
# The C is in _native/, included by _fastpath.pyx and compiled into this one extension. Files named .pxd declare
# structs, enums and constants; files named .pxi have the functions.
#
#   common/deadlines        deadline queues: all entries wait equally long
#   common/poller           an epoll set with one timer for all queues
#   common/system           what the kernel and the C library offer
#   accept/state            what is kept in memory: Counters, Listener, Record, Core; the enums
#   common/verdict          what every recogniser says: more, a match, something else
#   accept/match            match_feed: the recogniser of the request, a byte of state
#                           sniff: names what is not a request (http, tls, rtmp, …), from the table of
#                           worker/protocols.py
#   accept/proxy            proxy_feed: the recogniser of a PROXY header
#   http/head               head_feed: the recogniser of the head of an HTTP request
#   accept/ip_ranges        allowed: looks an address up in a table of networks made by serving/networks.py
#   common/share            a number of places that several members take from, each with a reserve
#   account/places          the account of places: which connection gives way at a limit
#   account/ranking         the heaviest address, in constant time
#   accept/address_limits   admit_address, release_slot: connections in total and by address, in memory of all workers
#   accept/top_addresses    note_refused: counts the addresses that limits refuse, for the log
#   accept/transitions      the states of a connection, what each means, and `enter`, which changes them
#   accept/access_log       samples connections and records their outcomes
#   accept/eviction         make_room, judge_session: what happens at a limit
#   accept/admission        judge_connection, judge_client: whether a client may connect, by its address
#   accept/reply            reply, refuse, begin_session, linger, close_connection: how a connection ends; send_reply is
#                           the one place where a reply is sent, counted and timed
#   codecs/codec            what a codec is: the table of its functions; tls_of, bottom_of: one may lie on another
#   accept/codec            connections with a codec: begin_codec, what is read is decoded, what is sent encoded
#   accept/http             begin_head: HTTP for the gateway, read to the end of its head; begin_decision, for the hook;
#                           refuse_http, end_http: the replies after which such a connection ends
#   accept/carrier          RTMPT: connections with many requests; begin_request, reply_to_request
#   http/tunnel_path        read_tunnel_path: the paths of RTMPT
#   codecs/gate             what the fast path and the tunnel sessions know of each other
#   accept/turns            run_turns: the steps of handshakes, a limited number in one wake-up
#   accept/connection       on_readable, on_deadline, …: one function for each event of a connection
#                           dispatch: handles ready and overdue records, a limited number in one wake-up
#   accept/accept           accept_burst: from the accept queue to records
#   accept/invariants       find_violation: what must hold between two calls, for tests
#   bindings/               the classes below, the names of the enums, the layout of Counters
#
# Every C function is `noexcept nogil`: none can raise. The methods below say in their declaration how they report an
# exception; what leaves a `ready` ends in a Guarded, so that it ends no watcher of the event loop.

from libc.stdint cimport uint8_t, uint64_t

from flashpol._native.accept.address_limits cimport AddressTable
from flashpol._native.accept.ip_ranges cimport NetworkTable, Ranges
from flashpol._native.accept.proxy cimport ProxyParser
from flashpol._native.accept.state cimport Core, Listener, Record
from flashpol._native.accept.top_addresses cimport TopTable
from flashpol._native.account.places cimport AccountCore
from flashpol._native.codecs.codec cimport Codec, Factory
from flashpol._native.codecs.gate cimport Gate
from flashpol._native.common.verdict cimport MatchVerdict
from flashpol._native.http.head cimport HeadParser, Span


cdef class RequestMatcher:
    cdef uint8_t _matched               # bytes of the request seen, 0..22
    cdef bint _terminated
    cdef MatchVerdict _verdict
    cdef bint _after_cr                 # a LF that comes next belongs to the request
    cdef readonly Py_ssize_t consumed


cdef class ProxyHeader:
    cdef ProxyParser _parser
    cdef MatchVerdict _verdict
    cdef readonly Py_ssize_t consumed


cdef class RequestHead:
    cdef HeadParser _parser
    cdef MatchVerdict _verdict
    cdef bytes _data                    # of the stream: HEAD_BYTES and one more at most, or what `parse` was given

    cdef void _continue(self) noexcept
    cdef bytes _bytes_of(self, Span span)


cdef class Networks:
    cdef NetworkTable table             # Acceptors borrow it

    cdef int _fill(self, Ranges* ranges, bint first, list boundaries) except -1


cdef class AddressLimits:
    cdef AddressTable table             # a ConnectionTable borrows it
    cdef unsigned char[::1] memory      # these two keep alive what `table` points to
    cdef Networks _exempt


cdef class TopAddresses:
    cdef TopTable table


cdef class Account:
    cdef AccountCore core                    # a ConnectionTable and a Pump borrow it
    cdef readonly AddressLimits address_limits


# Makes the codecs of a listener's clients; `_tls` has a subclass.
cdef class CodecFactory:
    cdef Factory factory                # an Acceptor borrows it


# The tunnel sessions of a worker; `_tunnel` has a subclass.
cdef class TunnelGate:
    cdef Gate gate                      # a ConnectionTable borrows it


# A codec that is to lie on that of a session, if it has one.
cdef class PreparedCodec:
    cdef Codec* codec                   # NULL: the session has it
    cdef object owner                   # keeps alive what the codec points to, while it is not a session's


cdef class PolicyReply:
    cdef readonly bytes data


cdef class ConnectionTable:
    cdef Core core
    cdef Account _account               # keeps alive what core.account and core.address_table point to
    cdef list _acceptors                # and what core.listeners points to
    cdef set _codec_owners              # and what the codecs of its sessions point to
    cdef object _on_slow_reply
    cdef object _on_session
    cdef object _on_request
    cdef object _on_open
    cdef TunnelGate _tunnels            # keeps alive what core.gate points to
    cdef int _no_client                 # what stands for the client's descriptor in a tunnel session
    cdef list _http_replies             # keeps alive what core.http_replies points to
    cdef object _on_access
    cdef object _on_error

    cdef int _init_samples(self, double share) except -1
    cdef int _add_signature(self, bytes prefix, int reason) except -1
    cdef int _set_http_replies(self, dict replies) except -1
    cdef int _expect_heads(self) except -1
    cdef int _expect_headers(self) except -1

    cdef int _call_hooks(self) except -1
    cdef int _start_slow_replies(self) except -1
    cdef int _start_sessions(self) except -1
    cdef bint _has_second_file(self) noexcept
    cdef int _log_samples(self) except -1
    cdef int _report(self, error) except -1
    cdef void _drop_pending_sessions(self) noexcept

    cdef Record* _of_greenlet(self, int fd) except NULL
    cdef Record* _of_request(self, int fd) except NULL


cdef class Guarded:
    cdef object _callback
    cdef object _on_error
    cdef readonly uint64_t returned     # how often the callback returned


cdef class Acceptor:
    cdef int fd
    cdef Listener listener              # its ConnectionTable borrows it
    cdef ConnectionTable connection_table
    cdef CodecFactory _codec            # these five keep alive what `listener` points to
    cdef PolicyReply reply
    cdef unsigned char[::1] block
    cdef Networks _networks
    cdef Networks _proxies
    cdef object _on_exhausted
