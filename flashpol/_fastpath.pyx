# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: auto_pickle=False, autotestdict=False
"""The fast path: accept, match, reply, park and count, without a Python object for each connection.

A connection is a `Record`, an entry of a table indexed by its file descriptor. Its states:

    FRESH ──match──────────────► reply ──all sent, nothing unread──► closed
      │ more                       │ ├──something unread, or may come──► LINGER ──FIN, bound, deadline──► closed
      ▼                            │ └──kernel took a part──► CONVERSATION (a greenlet) ──► LINGER
    REQUEST ──match──► reply       │
      │ │ └──22 bytes──► GRACE ──terminator, FIN or silence──► reply
      │ └──other──► refused ──http: 400, then LINGER; else closed
      └──deadline, FIN, RST──► closed

On a shared port there is another end, instead of refused and of the deadline, which is first_byte_timeout there:

    REQUEST ──other, deadline──► RELAYED (a greenlet, with all bytes that were read) ──► closed

FRESH is the moment after accept4. REQUEST, GRACE and LINGER are parked: in the epoll set and in the deadline queue of
that name. A deadline is set when a record enters its queue and never moved by what the client sends, so drip-feeding
gains nothing. A connection ends as exactly one of reply, refused, relayed, timeout and reset; `Counters` adds them up.
On a shared port a request that is under way at the deadline has request_timeout in addition, once.

LINGER exists because closing a socket with unread input makes Linux send RST, which can destroy a reply under way: the
reply is sent and the sending side shut down, then input is discarded until the client closes, up to a bound.

Silverlight's request has no terminator: on a listener that is not `terminated`, the 22 bytes are the match and GRACE is
never entered. A NUL that somebody sends all the same is input that may still come, so every reply there lingers.

The access log samples a share of the connections when they are accepted: those carry the number of a `Sample`, which
holds the client's address until the outcome is known and a hook has been told. The others cost one comparison.

Who connects is judged before anything else: at accept, or, where clients come through proxies, once a PROXY header has
said who it is. That one is read in FRESH and REQUEST, before the request and under the same deadline. Whoever is
refused for being too many, too fast or from elsewhere is closed at once. Where it is the total that is full, or there
are no descriptors, who waits without a request gives way (`evict_oldest`). On a shared port the client's silence, of
first_byte_timeout, begins with the header, for which the proxy has request_timeout.

What the diagram leaves out: a first byte that could begin several protocols ("P": POST, PUT, PRI) stays in REQUEST with
its bytes in `Record.seen` until the sniffing table can name it; on a shared port in the queue of GRACE, for as long.
"""


import enum

include "_native/common/deadlines.pxi"

include "_native/accept/match.pxi"
include "_native/accept/proxy.pxi"
include "_native/accept/ip_ranges.pxi"
include "_native/accept/address_limits.pxi"
include "_native/accept/admission.pxi"
include "_native/accept/access_log.pxi"
include "_native/accept/connection.pxi"
include "_native/accept/accept.pxi"
include "_native/accept/invariants.pxi"

include "_native/bindings/names.pxi"
include "_native/bindings/recognisers.pxi"
include "_native/bindings/networks.pxi"
include "_native/bindings/address_limits.pxi"
include "_native/bindings/connection_table.pxi"
include "_native/bindings/acceptor.pxi"
