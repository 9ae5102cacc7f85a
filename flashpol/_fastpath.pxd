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
