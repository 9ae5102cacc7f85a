"""The model of one host: how many clients each of its limits allows, and how long many of them take at once.

All of it is arithmetic on measured figures (`figures.py`), on what the settings and the code of flashpol allow, and on
what the kernel allows the host. Times in seconds, CPU in µs, memory in KB (1,024 bytes) unless a name says otherwise.

    CPU of a client      = messages x echo + (policy reply + opening) / session_seconds      µs a second
    memory of a client   = user memory + kernel memory of its sockets                        KB
    clients of a host    = the smallest of what CPU, memory, descriptors, ports and conntrack allow
    time of a storm      = start + clients x (policy reply + opening) / (workers x 1,000,000)  seconds
"""

import math
from dataclasses import dataclass

from bench.scale import figures
from flashpol.config import ConnectionLimits, ConnectionTimeouts, Server
from flashpol.relay.connecting import CONNECTING_SHARE, MIN_CONNECTING
from flashpol.worker.limits import MAX_KEPT_FILES, SESSION_FILES

MICROSECONDS = 1e6
FLASH_PATIENCE = 3.0  # seconds that Flash Player waits for a policy
CONTENT_PATIENCE = 10.0  # seconds that content waits for its session: an assumption, since content decides
TIME_WAIT = 60.0  # seconds, a constant of Linux (TCP_TIMEWAIT_LEN)
CONNTRACK_TIME_WAIT = 120.0  # net.netfilter.nf_conntrack_tcp_timeout_time_wait
MESSAGES = 0.5  # a second, each way: an assumption
MILLION = 1_000_000
CONNTRACK_OF_SESSION = 2  # entries: of the client's connection, and of the upstream's


@dataclass(frozen=True)
class Client:
    """What a client costs and does.

    policy: CPU of its policy reply, 0 if it asks for none. opening: CPU of opening and closing its session. echo: CPU
    of a message each way. memory: KB of user memory. messages: a second, each way. session_seconds: length of a
    session, after which it opens the next one.
    """

    name: str
    policy: float
    opening: float
    echo: float
    memory: float
    messages: float = MESSAGES
    session_seconds: float = 1800.0

    @property
    def connections(self) -> tuple[tuple[float, float], ...]:
        """Those that it makes until its session is open: CPU, and seconds that it waits."""
        opening = (self.opening, CONTENT_PATIENCE)
        return ((self.policy, FLASH_PATIENCE), opening) if self.policy else (opening,)

    @property
    def cpu(self) -> float:
        """µs of CPU a second."""
        return self.messages * self.echo + self.cpu_to_begin / self.session_seconds

    @property
    def cpu_to_begin(self) -> float:
        """µs of CPU until its session is open: what a storm costs."""
        return self.policy + self.opening


FLASH = Client(
    "Flash: a policy, then a plain session", figures.REPLY.value, figures.SHORT.value, figures.ECHO.value,
    figures.SESSION.value,
)  # fmt: skip
# The opening of a plain session contains its end, that of a WebSocket does not, and neither does it contain an echo.
WEBSOCKET = Client(
    "Ruffle: WebSocket", 0.0, figures.UPGRADE.value, figures.ECHO_WEBSOCKET.value, figures.SESSION_WEBSOCKET.value,
)  # fmt: skip
WEBSOCKET_TLS = Client(
    "Ruffle: WebSocket through TLS", 0.0, figures.UPGRADE_TLS.value, figures.ECHO_WEBSOCKET_TLS.value,
    figures.SESSION_WEBSOCKET_TLS.value,
)  # fmt: skip
SESSIONS = (FLASH, WEBSOCKET, WEBSOCKET_TLS)


@dataclass(frozen=True)
class Held:
    """What is held in large numbers. memory: the figure of one. messages: µs of CPU a second, of one."""

    name: str
    memory: figures.Figure
    sockets: int
    messages: float = 0.0


def _messages(figure: figures.Figure) -> float:
    return figure.value * MESSAGES


HELD = (
    Held("silent clients", figures.SILENT, 1),
    Held("slow replies", figures.SLOW_REPLY, 1),
    Held("sessions", figures.SESSION, SESSION_FILES, _messages(figures.ECHO)),
    Held("TLS sessions", figures.SESSION_TLS, SESSION_FILES, _messages(figures.ECHO_TLS)),
    Held("WebSocket sessions", figures.SESSION_WEBSOCKET, SESSION_FILES, _messages(figures.ECHO_WEBSOCKET)),
    Held("WebSocket sessions through TLS", figures.SESSION_WEBSOCKET_TLS, SESSION_FILES,
         _messages(figures.ECHO_WEBSOCKET_TLS)),
    # Each polls again when its poll was held for `rtmpt_hold`.
    Held("RTMPT sessions that poll every half a second", figures.TUNNEL, SESSION_FILES,
         _messages(figures.ECHO_RTMPT) + figures.POLL.value / ConnectionTimeouts().rtmpt_hold),
)  # fmt: skip


@dataclass(frozen=True)
class Host:
    """A host and its settings. The defaults are those of Linux, of flashpol and of its systemd unit.

    cores: one worker each. utilisation: the share of them that clients may take. memory_gib: that clients may take.
    files: RLIMIT_NOFILE of a worker. sources: addresses that it connects from. backends: addresses and ports of the
    upstream. port_range: net.ipv4.ip_local_port_range. connect_rate: of one worker. upstream_timestamps: the upstream
    uses TCP timestamps, so that ports in TIME-WAIT are used again.
    """

    name: str
    cores: int = 8
    utilisation: float = 0.5
    memory_gib: float = 1.5
    files: int = 262_144
    max_sessions: int = ConnectionLimits().max_sessions
    sources: int = 1
    backends: int = 1
    port_range: tuple[int, int] = (32_768, 60_999)
    conntrack_max: int = 262_144
    somaxconn: int = 4096
    backlog: int = Server().backlog
    connect_rate: float = 0.0
    connect_timeout: float = ConnectionTimeouts().connect_timeout
    upstream_timestamps: bool = True

    @property
    def ports(self) -> int:
        """Local ports towards all backends."""
        first, last = self.port_range
        return (last - first + 1) * self.sources * self.backends

    @property
    def accept_queue(self) -> int:
        """Connections that wait in the accept queues of all workers."""
        return self.cores * min(self.somaxconn, self.backlog)


def sessions_by_files(files: int) -> int:
    """Sessions of a worker that may open so many files, as `flashpol.worker.limits` divides them, and as `leaves_files`
    of the fast path keeps an eighth for policy requests."""
    return int((files - max(min(files / 4, MAX_KEPT_FILES), files / 8)) / SESSION_FILES)


def connecting_places(max_sessions: int) -> int:
    """Sessions of a worker that may wait to be connected at a time: see `flashpol.relay.connecting`."""
    return int(min(max_sessions, max(max_sessions * CONNECTING_SHARE, MIN_CONNECTING)))


def memory_of(client: Client, kernel_of_socket: float) -> float:
    """KB of a session: it has two sockets."""
    return client.memory + SESSION_FILES * kernel_of_socket


def limits(host: Host, client: Client, kernel_of_socket: float) -> dict[str, int]:
    """Clients of the host by what limits them. kernel_of_socket: KB of kernel memory of an idle connection's end."""
    began = 1 / client.session_seconds  # sessions that begin and end in a second, for each client
    entries = CONNTRACK_OF_SESSION + began * CONNTRACK_TIME_WAIT * (CONNTRACK_OF_SESSION + bool(client.policy))
    ports = 1 if host.upstream_timestamps else 1 + began * TIME_WAIT
    return {
        "CPU": int(host.cores * host.utilisation * MICROSECONDS / client.cpu),
        "memory": int(host.memory_gib * 2**20 / memory_of(client, kernel_of_socket)),
        "max_sessions": host.cores * host.max_sessions,
        "descriptors": host.cores * sessions_by_files(host.files),
        "local ports": int(host.ports / ports),
        "conntrack": int(host.conntrack_max / entries),
    }


def narrowest(found: dict[str, int]) -> tuple[str, int]:
    """The limit that is reached first, and the clients that it allows."""
    return min(found.items(), key=lambda item: item[1])


def hosts_for(clients: int, host: Host, client: Client, kernel_of_socket: float, spare: int = 1) -> int:
    """Hosts that hold so many clients, also while `spare` of them are lost."""
    return math.ceil(clients / narrowest(limits(host, client, kernel_of_socket))[1]) + spare


def rate(host: Host, cpu: float) -> float:
    """Connections a second that cost so much CPU each, with all cores."""
    return host.cores * MICROSECONDS / cpu


def at_once(host: Host, client: Client) -> int:
    """Clients that may come at one moment so that the last of them is served in time, with all cores, and none finds
    the accept queue full."""
    return min(host.accept_queue, *(int(rate(host, cpu) * patience) for cpu, patience in client.connections))


def useful_queue(client: Client) -> int:
    """Length of one worker's accept queue whose last client is served in time, if it has connections of each purpose:
    a longer one holds clients that have given up, and they cost as much as others."""
    mean = client.cpu_to_begin / len(client.connections)
    return int(min(patience for _, patience in client.connections) * MICROSECONDS / mean)


def storm_seconds(clients: int, cpu: float, workers: int, start: float = 0.0) -> float:
    """Until all clients that come at once are served. start: until the workers serve."""
    return start + clients * cpu / workers / MICROSECONDS


def connected_of(clients: int, connect_rate: float, connect_timeout: float, places: int) -> int:
    """Sessions that one worker connects of so many that come at one moment: a second's worth at once, others in their
    turn, if it comes in time and there is a place to wait; the rest is closed."""
    if not connect_rate:
        return min(clients, places)
    burst = connect_rate
    return min(clients, int(burst + min(places, connect_rate * connect_timeout)))


def connecting_seconds(clients: int, connect_rate: float) -> float:
    """Until the last of so many sessions is connected, which came at one moment and all have a place."""
    return max(0.0, clients / connect_rate - 1.0) if connect_rate else 0.0


def bottleneck(*stations: float, shared: bool) -> float:
    """A second's clients where each needs so much CPU (µs) at each of these stations: with a CPU for each station, or
    with one for all of them."""
    return MICROSECONDS / (sum(stations) if shared else max(stations))
