# cython: language_level=3, boundscheck=False, wraparound=False, initializedcheck=False, cdivision=True
# cython: auto_pickle=False, autotestdict=False
"""The fast path: accept, match, reply, park and count, without a Python object for each connection.

    listening socket            epoll set and timer of the ConnectionTable
           │ Acceptor.ready              │ ConnectionTable.ready
           ▼                             ▼
     accept_burst ──fresh──► on_readable ◄── dispatch ──► on_deadline
                                 │                             │
                 match_feed, sniff, proxy_feed                 │
                                 └──────────────┬──────────────┘
                                                ▼
           reply, refuse, linger, on_client_gone, begin_session; `enter` for every change of state
                                                │ what C cannot finish
                                                ▼
              hooks: on_slow_reply (a greenlet), on_session (a greenlet), on_access (a log line)

A connection is a `Record`, an entry of a table that is indexed by the file descriptor. accept/transitions.pxi draws the
states and has the table that says what each of them means.

**One reply.** Most requests are complete when the connection is accepted. Such a connection is read and answered
at once, and closed at the end of its batch: one poll looks at all of them, one close_range closes those with
neighbouring descriptors. It never enters the epoll set or a deadline queue.

**Deadlines.** A connection that waits is parked: it is in the epoll set and in the deadline queue of its state. The
deadline is set when the state is entered and is never moved by what the client sends, so drip-feeding gains nothing. On
a shared port a request that is arriving when first_byte_timeout ends has request_timeout in addition, once.

**Ends.** A connection ends as exactly one of reply, refused, relayed, timeout and reset. `Counters` adds them up.

**Lingering.** Linux sends RST when a socket is closed with unread input, and RST can destroy a reply that is still
under way. So after the reply the sending side is shut down, and input is discarded until the client closes, up to
linger_bytes and linger_timeout.

**Silverlight.** Its request has no terminator. On a listener that is not `terminated` the 22 bytes are the match and
GRACE is never entered. A NUL that follows is input that may still come, so every reply of such a listener lingers.

**PROXY headers.** A client is judged by its address at accept or, behind a proxy, when the PROXY header has been read.
The header is read before the request and under the same deadline. A client over a limit or from a denied network is
closed at once. On a shared port first_byte_timeout begins with the end of the header, for which the proxy has
request_timeout.

**Limits.** The account of places (account/places.pxd) says which connection gives way to a new one where a limit is
reached, and which shares limit those that do not give way.

**Replies that are not read.** One reply of 128 is watched until the client has acknowledged it. If a client does not,
all connections of its address are kept until they are acknowledged or reset (accept/reply.pxi, `is_watched`).

**Access log.** Connections are sampled at accept, all or a share of them. Such a record has the number of a `Sample`,
which holds the client's address until the outcome is known and a hook has logged it. The other connections pay one
comparison.

**Refused addresses.** When a limit refuses a connection, its client's address is counted in a `TopTable`, from which a
log line names the addresses that are refused most. So are those that are refused for their PROXY header.
"""

import enum

include "_native/common/deadlines.pxi"
include "_native/common/poller.pxi"

include "_native/common/share.pxi"

include "_native/account/ranking.pxi"
include "_native/account/places.pxi"
include "_native/account/memory.pxi"
include "_native/account/invariants.pxi"

include "_native/http/head.pxi"
include "_native/http/tunnel_path.pxi"

include "_native/accept/match.pxi"
include "_native/accept/proxy.pxi"
include "_native/accept/ip_ranges.pxi"
include "_native/accept/address_limits.pxi"
include "_native/accept/top_addresses.pxi"
include "_native/accept/transitions.pxi"
include "_native/accept/access_log.pxi"
include "_native/accept/admission.pxi"
include "_native/accept/reply.pxi"
include "_native/codecs/codec.pxi"
include "_native/accept/codec.pxi"
include "_native/accept/turns.pxi"
include "_native/accept/http.pxi"
include "_native/accept/carrier.pxi"
include "_native/accept/connection.pxi"
include "_native/accept/eviction.pxi"
include "_native/accept/accept.pxi"
include "_native/accept/invariants.pxi"

include "_native/bindings/guarded.pxi"
include "_native/bindings/tables.pxi"
include "_native/bindings/names.pxi"
include "_native/bindings/recognisers.pxi"
include "_native/bindings/request_head.pxi"
include "_native/bindings/networks.pxi"
include "_native/bindings/address_limits.pxi"
include "_native/bindings/account.pxi"
include "_native/bindings/top_addresses.pxi"
include "_native/bindings/connection_table.pxi"
include "_native/bindings/acceptor.pxi"
