"""A fleet behind a balancer, in steps of time: clients arrive, wait in accept queues, give up, and come again.

Clients are counted, not simulated one by one: a group of them is one number with a deadline, so ten million take
seconds. Every client is at any time playing, about to connect, in an accept queue, waiting for its turn at
`connect_rate`, waiting for the application, or waiting to try again; their sum never changes.

- The balancer gives each connection to a host by chance, also to one that is gone until it has noticed.
- A worker serves its accept queue in order; a host's queues are one here. Its CPU is what the messages of sessions
  leave. A client that has given up stays in the queue and costs as much as the others. A full queue drops the SYN,
  which the client's kernel sends again after 1, 3 and 7 seconds, as Linux before 6.5 does.
- A Flash client asks for a policy, and gives up after three seconds. Then it opens a session, by a connection of its
  own, and waits for the application's first byte as long as its content does. Ruffle's opens the session only.
- Sessions connect to the application of their host, in turns if there is a `connect_rate`. It accepts so many a second
  and has an accept queue too.
- A client that gave up, or was refused, tries again after `retry` seconds, some earlier and some later. A Flash client
  then asks for the policy again, as after its page was loaded again.
"""

import math
import random
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from bench.scale.model import CONTENT_PATIENCE, FLASH_PATIENCE, MICROSECONDS, Client, Host, connecting_places

STEP = 0.05  # seconds
SYN_AGAIN = (1.0, 3.0, 7.0)  # seconds after the first SYN, as Linux before 6.5 sends it again
EXACT = 32  # a draw whose mean is below is made exactly, others from the normal distribution

POLICY, OPENING = 0, 1  # what a connection is for


@dataclass(frozen=True)
class Fleet:
    """hosts: at the start. detect: seconds until the balancer notices that a host is gone. retry: seconds between the
    tries of a client, `retry_spread` of it more or less. accepts: sessions a second that the application of a host
    accepts; 0: as many as come. application_queue: its accept queue."""

    host: Host
    client: Client
    clients: int
    hosts: int
    detect: float = 3.0
    retry: float = 5.0
    retry_spread: float = 0.5
    accepts: float = 0.0
    application_queue: int = 4096


@dataclass(frozen=True)
class Storm:
    """What happens at second `at`. lost: hosts that fail. cut: share of the sessions that end on the others.
    spread: seconds over which clients that were cut come back, by chance."""

    at: float = 5.0
    lost: int = 0
    cut: float = 0.0
    spread: float = 0.0


@dataclass
class Outcome:
    """Seconds are counted from the storm.

    failed: tries that ended without a session. refused: those of them at `connect_rate`. late: connections that were
    served after their clients had given up. stale: sessions that the application accepted after that. queue: the most
    connections in one host's accept queues. back: seconds until so many of 100 clients that were cut have a session
    again; None: not within the run. playing: at each step.
    """

    clients: int
    cut: int = 0
    failed: int = 0
    refused: int = 0
    dropped_syns: int = 0
    late: int = 0
    stale: int = 0
    queue: int = 0
    back: dict[float, float | None] = field(default_factory=dict)
    playing: list[int] = field(default_factory=list)


@dataclass(slots=True)
class _Group:
    """Clients that wait together. syns: that they have sent again. alive: they have not given up."""

    count: int
    deadline: int
    purpose: int
    syns: int = 0
    alive: bool = True


class _Host:
    def __init__(self, playing: int) -> None:
        self.playing = playing
        self.up = True
        self.queue: deque[_Group] = deque()
        self.queued = 0
        self.left = 0.0  # CPU that was not enough for one more connection, in µs
        self.next_turn = -1.0  # of connect_rate, in seconds
        self.turns: deque[tuple[int, _Group]] = deque()  # the step of each turn
        self.waiting = 0  # for a turn
        self.application: deque[_Group] = deque()
        self.applied = 0
        self.accepted = 0.0  # a fraction of a session that the application has done


class Simulation:
    """One run. Deterministic for a seed."""

    def __init__(self, fleet: Fleet, storm: Storm, seconds: float, seed: int = 1) -> None:
        self.fleet, self.storm, self.steps = fleet, storm, round(seconds / STEP)
        self.random = random.Random(seed)
        shares = [fleet.clients // fleet.hosts + (n < fleet.clients % fleet.hosts) for n in range(fleet.hosts)]
        self.hosts = [_Host(share) for share in shares]
        self.listed = list(self.hosts)
        self.coming: dict[int, list[int]] = {}  # step -> clients by purpose, which connect then
        self.again: dict[int, list[tuple[_Host, _Group]]] = {}  # step -> groups whose SYN comes again
        self.connects: dict[int, list[tuple[_Host, _Group]]] = {}  # the same, of sessions to the application
        self.ends: dict[int, list[_Group]] = {}  # step -> groups that give up then
        self.now = 0
        self.outcome = Outcome(fleet.clients)
        self._first = POLICY if fleet.client.policy else OPENING
        self._cost = (fleet.client.policy, fleet.client.opening)
        self._patience = (FLASH_PATIENCE, CONTENT_PATIENCE)
        self._failed = 0  # in this step
        self._alive_in_groups = 0
        workers = fleet.host.cores
        self._rate = fleet.host.connect_rate * workers
        self._places = connecting_places(fleet.host.max_sessions) * workers

    # ------------------------------------------------------------------------------------------------------- the run

    def run(self) -> Outcome:
        """All steps."""
        storm_step = round(self.storm.at / STEP)
        low = 0
        for step in range(self.steps):
            self.now = step
            if self.now == storm_step:
                self._storm()
                low = self.fleet.clients - self.outcome.cut
            if self.now == storm_step + round(self.fleet.detect / STEP):
                self.listed = [host for host in self.hosts if host.up]
            self._step()
            self.outcome.playing.append(sum(host.playing for host in self.hosts))
            if self.now >= storm_step and self.outcome.cut:
                self._note_back(low, storm_step)
        return self.outcome

    def counted(self) -> int:
        """All clients, by adding up where they are: `Fleet.clients` at any time."""
        waiting = sum(map(sum, self.coming.values()))
        return sum(host.playing for host in self.hosts) + waiting + self._alive_in_groups

    def _note_back(self, low: int, storm_step: int) -> None:
        share = (self.outcome.playing[-1] - low) / self.outcome.cut
        for percent in (50.0, 99.0):
            if self.outcome.back.get(percent) is None:
                self.outcome.back[percent] = (self.now - storm_step) * STEP if share >= percent / 100 else None

    def _step(self) -> None:
        for group in self.ends.pop(self.now, ()):
            if group.alive and group.count:
                group.alive = False
                self._alive_in_groups -= group.count
                self._failed += group.count
        for host in self.hosts:
            if host.up:
                self._end_sessions(host)
        for purpose, count in enumerate(self.coming.pop(self.now, (0, 0))):
            for host, share in self._balance(count):
                self._connect(host, self._group(share, purpose))
        for host, group in self.again.pop(self.now, ()):
            self._syn(host, group)
        for host, group in self.connects.pop(self.now, ()):
            self._to_application(host, group)
        for host in self.hosts:
            if host.up:
                self._serve(host)
                self._take_turns(host)
                self._accept(host)
        self._try_again()

    # ------------------------------------------------------------------------------------------------------- clients

    def _storm(self) -> None:
        for number, host in enumerate(self.hosts):
            lost = number < self.storm.lost
            gone = host.playing if lost else self._draw(host.playing, self.storm.cut)
            host.playing -= gone
            self.outcome.cut += gone
            self._come_within(gone, 0, self.storm.spread)
            if lost:
                self._lose(host)

    def _lose(self, host: _Host) -> None:
        """All that wait there give up at their deadlines; nothing is served."""
        host.up = False
        host.turns.clear()
        host.queue.clear()
        host.application.clear()

    def _end_sessions(self, host: _Host) -> None:
        ended = self._draw(host.playing, STEP / self.fleet.client.session_seconds)
        host.playing -= ended
        self._come(self.now, self._first, ended)

    def _come(self, step: int, purpose: int, count: int) -> None:
        if count:
            self.coming.setdefault(step, [0, 0])[purpose] += count

    def _try_again(self) -> None:
        """Those that failed in this step come again, from the beginning."""
        self.outcome.failed += self._failed
        wait, spread = self.fleet.retry, self.fleet.retry * self.fleet.retry_spread
        self._come_within(self._failed, max(1, round((wait - spread) / STEP)), 2 * spread)
        self._failed = 0

    def _come_within(self, count: int, first: int, seconds: float) -> None:
        """They connect within so many seconds, by chance. first: steps from now."""
        steps = max(1, round(seconds / STEP))
        for step in range(steps):
            share = self._draw(count, 1 / (steps - step))
            count -= share
            self._come(self.now + first + step, self._first, share)

    def _group(self, count: int, purpose: int) -> _Group:
        return self._with_deadline(count, self.now + round(self._patience[purpose] / STEP), purpose)

    def _balance(self, count: int) -> Iterator[tuple[_Host, int]]:
        left = count
        for number, host in enumerate(self.listed):
            share = self._draw(left, 1 / (len(self.listed) - number))
            left -= share
            if share:
                yield host, share

    def _connect(self, host: _Host, group: _Group) -> None:
        if host.up:  # one that is gone replies to no SYN: they give up at their deadline
            self._syn(host, group)

    def _syn(self, host: _Host, group: _Group) -> None:
        """Those that find the queue full send their SYN again."""
        if not (host.up and group.alive):
            return
        fits = min(group.count, max(0, self.fleet.host.accept_queue - host.queued))
        late = group.count - fits
        if late:
            self.outcome.dropped_syns += late
            group.count = fits
            rest = self._with_deadline(late, group.deadline, group.purpose, group.syns)
            self._alive_in_groups -= late  # they were counted
            self._syn_again(self.again, host, rest, rest.deadline)
        if fits:
            host.queue.append(group)
            host.queued += fits
            self.outcome.queue = max(self.outcome.queue, host.queued)

    def _syn_again(
        self, schedule: dict[int, list[tuple[_Host, _Group]]], host: _Host, group: _Group, until: int
    ) -> None:
        """Put them where they connect again, if that is before `until`."""
        if group.syns < len(SYN_AGAIN):
            before = SYN_AGAIN[group.syns - 1] if group.syns else 0.0
            step = self.now + round((SYN_AGAIN[group.syns] - before) / STEP)
            group.syns += 1
            if step < until:
                schedule.setdefault(step, []).append((host, group))

    # --------------------------------------------------------------------------------------------------------- hosts

    def _serve(self, host: _Host) -> None:
        client = self.fleet.client
        busy = host.playing * client.messages * client.echo * STEP
        budget = max(0.0, self.fleet.host.cores * MICROSECONDS * STEP - busy) + host.left
        while host.queue:
            group = host.queue[0]
            cost = self._cost[group.purpose]
            done = min(group.count, int(budget / cost))
            budget -= done * cost
            group.count -= done
            host.queued -= done
            if group.alive:
                self._alive_in_groups -= done
                self._served(host, group, done)
            else:
                self.outcome.late += done
            if group.count:
                host.left = budget
                return
            host.queue.popleft()
        host.left = 0.0

    def _served(self, host: _Host, group: _Group, done: int) -> None:
        if group.purpose == POLICY:
            self._come(self.now + 1, OPENING, done)
        elif done:
            self._to_upstream(host, self._with_deadline(done, group.deadline))

    def _with_deadline(self, count: int, deadline: int, purpose: int = OPENING, syns: int = 0) -> _Group:
        group = _Group(count, deadline, purpose, syns)
        self.ends.setdefault(deadline, []).append(group)
        self._alive_in_groups += count
        return group

    def _to_upstream(self, host: _Host, group: _Group) -> None:
        """Sessions take turns at `connect_rate`, as `flashpol.relay.rate_limit` gives them; others are refused."""
        if not self._rate:
            self._to_application(host, group)
            return
        now = self.now * STEP
        due = max(host.next_turn, now - 1.0)
        turns = int((now + self.fleet.host.connect_timeout - due) * self._rate) + 1
        # A turn that is due takes no place: it connects at once.
        at_once = max(0, int((now - due) * self._rate))
        taken = max(0, min(group.count, turns, at_once + self._places - host.waiting))
        refused = group.count - taken
        if refused:
            group.count = taken
            self._alive_in_groups -= refused
            self.outcome.refused += refused
            self._failed += refused
        if not taken:
            return
        host.next_turn = due + taken / self._rate
        host.waiting += taken
        # Each step gives some of them their turn.
        step, left = self.now, taken
        while left:
            until = int(((step + 1) * STEP - due) * self._rate) - (taken - left)
            share = min(left, max(0, until))
            if share:
                part = self._with_deadline(share, group.deadline)
                host.turns.append((step, part))
                left -= share
            step += 1
        self._alive_in_groups -= taken
        group.count = 0

    def _take_turns(self, host: _Host) -> None:
        later: deque[tuple[int, _Group]] = deque()
        for step, group in host.turns:
            if step > self.now:
                later.append((step, group))
                continue
            host.waiting -= group.count
            self._to_application(host, group)
        host.turns = later

    def _to_application(self, host: _Host, group: _Group) -> None:
        """Its accept queue takes them, also those that have given up meanwhile; or it is full, and the SYN comes again
        within connect_timeout. A session that is refused then counts as failed at its client's deadline."""
        if not host.up:
            return
        if not self.fleet.accepts:
            self._play(host, group, group.count)
            group.count = 0
            return
        fits = min(group.count, max(0, self.fleet.application_queue - host.applied))
        late = group.count - fits
        group.count = fits
        if late and group.alive:
            rest = self._with_deadline(late, group.deadline, syns=group.syns)
            self._alive_in_groups -= late
            until = self.now + round((self.fleet.host.connect_timeout - sum(SYN_AGAIN[: group.syns])) / STEP)
            self._syn_again(self.connects, host, rest, until)
        if fits:
            host.application.append(group)
            host.applied += fits

    def _accept(self, host: _Host) -> None:
        if not self.fleet.accepts:
            return
        host.accepted = min(host.accepted, 1.0) + self.fleet.accepts * STEP
        while host.application and host.accepted >= 1.0:
            group = host.application[0]
            done = min(group.count, int(host.accepted))
            host.accepted -= done
            host.applied -= done
            self._play(host, group, done)
            group.count -= done
            if group.count:
                return
            host.application.popleft()

    def _play(self, host: _Host, group: _Group, count: int) -> None:
        if group.alive:
            host.playing += count
            self._alive_in_groups -= count
        else:
            self.outcome.stale += count

    # -------------------------------------------------------------------------------------------------------- chance

    def _draw(self, count: int, chance: float) -> int:
        """How many of `count` have luck (the binomial distribution)."""
        if chance >= 1.0:
            return count
        if count <= 0 or chance <= 0.0:
            return 0
        mean = count * chance
        if mean < EXACT:
            return min(count, self._draw_few(count, chance))
        return max(0, min(count, round(self.random.gauss(mean, (mean * (1 - chance)) ** 0.5))))

    def _draw_few(self, count: int, chance: float) -> int:
        """By the gaps between them, which are geometric."""
        if chance > 0.5:
            return count - self._draw_few(count, 1 - chance)
        found, at, scale = 0, 0, math.log1p(-chance)
        while True:
            at += int(math.log(1.0 - self.random.random()) / scale) + 1
            if at > count:
                return found
            found += 1
