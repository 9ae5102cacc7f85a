# The account of places: every connection of a process, of whatever kind, takes a place here and gives it back here.
# docs/architecture.md ("The account of places") has the invariants; account/invariants.pxi checks them.
#
# A place is held until the connection is closed. Two kinds of use never give way: slow replies, which are being sent,
# and sessions in which both sides have sent something. Shares limit those. All other connections give way to new ones,
# by one rule: the heaviest address first, that is the one with the most connections that can give way; among those of
# one address the one that has waited longest.

from libc.stdint cimport int32_t, int64_t, uint8_t, uint32_t, uint64_t

from flashpol._native.codecs.codec cimport Codec
from flashpol._native.common.share cimport Member, Share

cdef enum:
    WEIGHT_CLASSES = 64         # buckets of addresses by weight: to 15 exactly, then two for each power of two
    MAX_LOOKED_AT = 64          # connections, or addresses, that are considered for one new connection

cdef enum Kind:                 # how a connection gives way
    K_NONE = 0                  # it does not: it is being handled or sent, or both sides have spoken in its session
    K_WAITING                   # it has not sent its request, or only without the terminator; then it gets its reply
    K_QUEUED                    # its handshake waits for its first turn
    K_HANDSHAKE                 # it has a place among the handshakes, and has not sent its request
    K_LINGER                    # it has its reply
    K_SILENT_SESSION            # a session in which the client has never sent a byte, or that began with its FIN
    K_UNANSWERED_SESSION        # a session in which the client has sent something, and the application never has
    KIND_COUNT
    SESSION_KINDS = KIND_COUNT - K_SILENT_SESSION

cdef enum:                      # the rankings of addresses, by the connections of these kinds
    ALL = 0
    QUEUED                      # K_QUEUED
    HANDSHAKES                  # K_HANDSHAKE
    SESSIONS                    # K_SILENT_SESSION and K_UNANSWERED_SESSION
    RANKING_COUNT

# The connections of one address and kind, in the order in which they became so. Descriptors + 1, so that zeroed memory
# is an empty line.
cdef struct Line:
    int32_t head
    int32_t tail

# The sessions of one listener that give way, of each kind, in the same order. Descriptors + 1.
cdef struct SessionLines:
    int32_t head[SESSION_KINDS]
    int32_t tail[SESSION_KINDS]

# One address in a ranking, at its number as a holder.
cdef struct Holder:
    int32_t weight              # its connections in this ranking
    int32_t before              # neighbours in the bucket of that weight; -1 ends
    int32_t after

cdef struct Ranking:
    Holder* holders
    int64_t total               # connections in it
    uint64_t occupied           # bit b: bucket b has an address
    int32_t first[WEIGHT_CLASSES]
    int32_t last[WEIGHT_CLASSES]

# One for each possible descriptor: 24 bytes.
cdef struct AccountEntry:
    uint64_t number             # of all that ever joined a line: the lowest has waited longest
    int32_t before              # neighbours in the line, + 1; 0 ends
    int32_t after
    uint32_t slot               # of the address in the address table, as the line knows it; 0 is for all without one
    uint8_t kind
    uint8_t leaving             # a session that was evicted; its greenlet has not closed it yet
    uint8_t finished            # a session that began with the FIN of its client

# And one that only sessions touch.
cdef struct SessionEntry:
    SessionLines* lines         # its listener's
    int32_t before              # neighbours there, + 1; 0 ends
    int32_t after
    int32_t* silent             # its listener's count of silent sessions, if it is one, also before it is connected

ctypedef void (*end_session_t)(void* relay, int fd) noexcept nogil      # and the others that act on a session

# An Account owns it; the ConnectionTable and the Pump of the process borrow it.
#
# Holders are the addresses with connections in lines. A holder has a number, from 1 on, until the last of these leaves.
# The number that was given back last is taken first. So lines and rankings take memory for as many addresses as are
# there at a time, and not for all slots over which these are scattered. Holder 0 has no connections and is read for an
# address that is no holder.
cdef struct AccountCore:
    AccountEntry* entries
    SessionEntry* session_entries
    size_t capacity
    uint32_t slots              # of the address table, and one for all addresses without a slot
    uint32_t* holder_of_slot    # 0: it is none
    uint32_t* slot_of_holder    # and of a number that was given back the one that was so before it, 0 ends
    uint32_t max_holders
    uint32_t last_holder        # the highest number that was ever taken
    uint32_t free_holder        # the number that was given back last, 0: all up to last_holder are taken
    Line* lines[KIND_COUNT]     # by holder; most addresses have connections of one kind only
    Ranking rankings[RANKING_COUNT]
    uint64_t joined             # connections that ever joined a line
    int64_t held                # connections, without the sessions that are leaving
    int64_t max_files           # descriptors that connections may have, and sessions on the side of the upstream
    Share sessions
    Share slow_replies
    Share handshakes            # connections whose codec has begun its work, and that have not sent their request
    Codec** codecs              # by descriptor; NULL: it has none. The fast path owns them, the relay uses them
    int64_t leaving             # sessions that were evicted and are not closed yet; they count no more
    int64_t max_leaving
    end_session_t end_session   # ends the session of a client's descriptor soon; NULL: there is no relay
    end_session_t wake_session  # of a tunnel: its client has sent something, or asks
    end_session_t lose_session  # of a tunnel: its client is gone
    void* relay
