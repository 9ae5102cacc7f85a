"""The places of sessions that wait to be connected, for all shared ports of a process.

Each listener is a member with a reserve, so that an application that accepts none leaves places for the sessions of
others. A session that finds no place waits for one for a moment: many may begin at once, and an application that is
well accepts them within milliseconds.
"""

import time
from collections import deque

import gevent
import gevent.event

from flashpol._pump import Place, Places, PlacesMember

# Of all sessions, this share may wait to be connected at a time, but MIN_CONNECTING always may. Half of these places
# are divided into reserves, one for each listener.
CONNECTING_SHARE, MIN_CONNECTING = 0.25, 16
RESERVED_SHARE = 0.5
# How long a session waits for a place, and how often it is looked for one, in seconds.
PATIENCE = 0.25
POLL = 0.002


class ConnectingPlaces:
    """max_sessions: of the process."""

    def __init__(self, max_sessions: int) -> None:
        self._places = Places(int(min(max_sessions, max(max_sessions * CONNECTING_SHARE, MIN_CONNECTING))))
        self._members: list[ConnectingMember] = []
        self._greenlet: gevent.Greenlet | None = None

    def add_member(self) -> "ConnectingMember":
        """One more listener: the reserves are divided again."""
        reserve = int(self._places.limit * RESERVED_SHARE) // (len(self._members) + 1)
        for one in self._members:
            one.member.reserve = reserve
        member = ConnectingMember(self, PlacesMember(self._places))
        member.member.reserve = reserve
        self._members.append(member)
        return member

    def watch(self) -> None:
        """Hand out places while sessions wait for them."""
        if not self._greenlet:
            self._greenlet = gevent.spawn(self._hand_out)

    def _hand_out(self) -> None:
        while any(member.waiting for member in self._members):
            gevent.sleep(POLL)
            now = time.monotonic()
            for member in self._members:
                member.hand_out(now)


class _Waiting:
    def __init__(self, deadline: float) -> None:
        self.deadline = deadline
        self.place: Place | None = None
        self.decided = gevent.event.Event()


class ConnectingMember:
    """The places of one listener."""

    def __init__(self, places: ConnectingPlaces, member: PlacesMember) -> None:
        self._places = places
        self.member = member
        self.waiting: deque[_Waiting] = deque()

    def take_now(self) -> Place | None:
        """A place, None: there is none for one that has not waited."""
        return None if self.waiting else self.member.take()

    def take(self) -> Place | None:
        """A place, after waiting for PATIENCE seconds at most; blocks this greenlet. None: there was none."""
        place = self.take_now()
        if place:
            return place
        waiting = _Waiting(time.monotonic() + PATIENCE)
        self.waiting.append(waiting)
        self._places.watch()
        try:
            waiting.decided.wait()
        except BaseException:  # the greenlet is killed
            waiting.deadline = 0.0
            if waiting.place:
                waiting.place.release()
            raise
        return waiting.place

    def hand_out(self, now: float) -> None:
        """Give places to those that have waited longest, and end the waiting of those without patience."""
        while self.waiting:
            first = self.waiting[0]
            if first.deadline > now:
                first.place = self.member.take()
                if not first.place:
                    return
            self.waiting.popleft()
            first.decided.set()
