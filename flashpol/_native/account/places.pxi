# Which connection gives way, and what the relay says of silent sessions.

from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.stdlib cimport calloc, free

from flashpol._native.account.places cimport (
    K_GRACE, K_LINGER, K_NONE, K_SILENT_SESSION, Place, Places, SESSIONS, WAITING,
)


cdef inline int heaviest_connection(const Places* places) noexcept nogil:
    """The connection that gives way first of all, -1 if none can."""
    cdef const Ranking* sessions = &places.rankings[SESSIONS]
    cdef const Ranking* waiting = &places.rankings[WAITING]
    cdef int32_t silent = heaviest(sessions) if places.leaving < places.max_leaving else -1
    cdef int32_t slot = heaviest(waiting)
    if silent >= 0 and (slot < 0 or sessions.holders[silent].weight > waiting.holders[slot].weight):
        return first_of(sessions, <uint32_t>silent)
    return first_of(waiting, <uint32_t>slot) if slot >= 0 else -1


cdef inline void forget_silence(Places* places, int fd) noexcept nogil:
    """The session of this client's descriptor is not silent any more, or has ended."""
    cdef Place* place = &places.places[fd]
    if place.silent:
        place.silent = False
        places.silent_sessions -= 1
        set_kind(places, fd, place.slot, K_NONE)


cdef inline void begin_silence(Places* places, int fd, uint32_t slot) noexcept nogil:
    """A session begins in which the client has sent nothing. It gives way once it is connected."""
    places.places[fd].slot = slot
    places.places[fd].silent = True
    places.silent_sessions += 1


cdef inline void forget_session(Places* places, int fd) noexcept nogil:
    """A session's connection is closed."""
    forget_silence(places, fd)
    places.leaving -= places.places[fd].leaving
    places.places[fd].leaving = False


# The relay calls these two, with the client's descriptor.

cdef inline void session_opened(Places* places, int fd) noexcept nogil:
    """The session is connected to its upstream."""
    if places.places[fd].silent:
        set_kind(places, fd, places.places[fd].slot, K_SILENT_SESSION)


cdef inline void client_spoke(Places* places, int fd) noexcept nogil:
    """The client has sent its first byte in the session."""
    forget_silence(places, fd)


# ---------------------------------------------------------------------------------------------------------------- memory

cdef bint open_places(Places* places, size_t capacity, uint32_t slots) noexcept nogil:
    """False: there is no memory. close_places frees what was allocated."""
    places.capacity = capacity
    places.slots = slots
    places.places = <Place*>calloc(max(capacity, <size_t>1), sizeof(Place))
    return places.places != NULL and (
        open_ranking(&places.rankings[WAITING], slots, K_LINGER, K_GRACE - K_LINGER + 1)
    ) and open_ranking(&places.rankings[SESSIONS], slots, K_SILENT_SESSION, 1)


cdef void close_places(Places* places) noexcept nogil:
    free(places.places)
    close_ranking(&places.rankings[WAITING])
    close_ranking(&places.rankings[SESSIONS])
