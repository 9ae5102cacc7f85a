"""How many sessions and slow replies a worker has room for: the shares of its account of places.

`docs/architecture.md` ("The account of places") has the rules. Here the numbers are made: from the settings, and from
what the operating system allows the process.
"""

import math
import resource
from dataclasses import dataclass

from flashpol._fastpath import Account, AddressLimits
from flashpol.config import ConnectionLimits
from flashpol.process.limits import count_files, spare_memory

# What sessions and slow replies may take of all places: neither gives way to a new connection, and policy requests
# must find a place. Each worker has its part of `max_connections`.
SESSIONS_TAKE, SLOW_REPLIES_TAKE = 5 / 8, 1 / 4
# A session has two descriptors. Sessions leave a quarter of all descriptors, and never need to leave more than this.
SESSION_FILES, MAX_KEPT_FILES = 2, 1000
# Descriptors that no connection takes: for adopted sockets, name look-ups and whatever else a process opens.
SPARE_FILES_SHARE, MIN_SPARE_FILES, MAX_SPARE_FILES = 1 / 8, 4, 64
# What lines to other workers take at most of all descriptors. A line that gets none is missing: the sessions of that
# worker cannot be reached from this one.
LINES_SHARE = 1 / 4
# Where memory is limited (RLIMIT_AS): what a session and a slow reply may take at the worst, in bytes, and which part
# of the memory that is left all of them may. Without memory, a greenlet that cannot be made refuses one client, but
# neither gevent nor CPython survives that everywhere.
SESSION_BYTES, SLOW_REPLY_BYTES = 24 << 10, 16 << 10
# What TLS adds: an SSL object, and a record that has not arrived as a whole, or is not sent. In a handshake OpenSSL has
# a buffer for messages besides.
TLS_BYTES, HANDSHAKE_BYTES = 32 << 10, 48 << 10
SESSIONS_MEMORY_SHARE, SLOW_REPLIES_MEMORY_SHARE, BUFFERS_MEMORY_SHARE, HANDSHAKES_MEMORY_SHARE = 0.4, 0.2, 0.1, 0.1
# Evicted sessions that are not closed yet: their greenlets do that in the next round of the event loop.
MIN_LEAVING, MAX_LEAVING, LEAVING_SHARE = 64, 256, 1 / 8
# Bytes of one buffer of the pump, and how many it has where memory is not limited.
BUFFER_BYTES, MAX_BUFFERS = 32 << 10, 512


@dataclass(frozen=True)
class PlaceLimits:
    """The shares of a worker. `settings`: what the configuration says; the rest is what is in force."""

    settings: ConnectionLimits
    sessions: int
    slow_replies: int
    handshakes: int
    buffers: int
    files: int  # of all connections, 0: no limit

    @classmethod
    def of(
        cls, settings: ConnectionLimits, workers: int = 1, *, tls: bool = False, line_files: int = 0
    ) -> "PlaceLimits":
        """The shares of one of `workers` processes with these settings and with the limits that it has now.

        tls: its sessions and slow replies may have TLS. line_files: descriptors for lines to other workers, which
        come later than this; of few descriptors they take a quarter.
        """
        places = min(settings.max_worker_connections or math.inf, (settings.max_connections or math.inf) / workers)
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        files = math.inf if limit == resource.RLIM_INFINITY else max(0, limit - count_files())
        files -= min(line_files, files * LINES_SHARE)
        spare = spare_memory()
        memory = math.inf if spare is None else spare
        sessions = min(
            settings.max_sessions,
            max(1.0, places * SESSIONS_TAKE),
            (files - min(files / 4, MAX_KEPT_FILES)) / SESSION_FILES,
            memory * SESSIONS_MEMORY_SHARE / (SESSION_BYTES + TLS_BYTES * tls),
        )
        slow_replies = min(
            settings.max_slow_replies,
            max(1.0, places * SLOW_REPLIES_TAKE),
            files * SLOW_REPLIES_TAKE,
            memory * SLOW_REPLIES_MEMORY_SHARE / (SLOW_REPLY_BYTES + TLS_BYTES * tls),
        )
        handshakes = min(
            settings.max_handshakes, max(1.0, places / 4), memory * HANDSHAKES_MEMORY_SHARE / HANDSHAKE_BYTES
        )
        buffers = min(MAX_BUFFERS, memory * BUFFERS_MEMORY_SHARE / BUFFER_BYTES)
        kept = min(MAX_SPARE_FILES, max(MIN_SPARE_FILES, files * SPARE_FILES_SHARE))
        usable = 0 if files == math.inf else max(1, int(files - kept))
        return cls(settings, int(sessions), int(slow_replies), int(handshakes), int(buffers), usable)

    def account(self, address_limits: AddressLimits | None) -> Account:
        return Account(
            capacity=resource.getrlimit(resource.RLIMIT_NOFILE)[0]
            % 2**63,  # RLIM_INFINITY is -1: the table has a limit
            address_limits=address_limits,
            max_sessions=self.sessions,
            max_slow_replies=self.slow_replies,
            max_handshakes=self.handshakes,
            max_files=self.files,
            max_leaving=max(MIN_LEAVING, min(MAX_LEAVING, int(self.sessions * LEAVING_SHARE))),
        )

    def describe(self, reason: str) -> str:
        """The settings behind a reason of a refusal, with the values in force: "max_sessions (10,000)"."""
        effective = {
            "max_sessions": self.sessions,
            "max_slow_replies": self.slow_replies,
            "max_handshakes": self.handshakes,
        }
        if reason in effective:
            return f"{reason} ({effective[reason]:,})"
        if reason == "max_address_sessions" and not self.settings.max_address_sessions:
            return f"four times the sessions that are free of max_sessions ({self.sessions:,})"
        names = ("max_connections", "max_worker_connections") if reason == "max_connections" else (reason,)
        values = {name: getattr(self.settings, name) for name in names}
        return " or ".join(f"{name} ({value:,})" for name, value in values.items() if value)
