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
