"""The settings that limit connections: how long each may take, and how many there may be."""

import dataclasses
from dataclasses import dataclass
from ipaddress import ip_network

from flashpol.config.declare import setting
from flashpol.config.setting_types import NETWORKS, Network, number


@dataclass(frozen=True)
class ConnectionTimeouts:
    """How long a connection may take in each of its states, in seconds, and how much a WebSocket message or an RTMPT
    session may hold; a listener may have its own."""

    request_timeout: float = setting(
        3.0,
        number(0.05, 3600),
        "A client must send its whole request within this many seconds of connecting; bytes that arrive meanwhile do "
        "not extend the time.",
        "Flash Player itself gives up after 3 s.",
    )
    terminator_grace: float = setting(
        0.15,
        number(0.01, 60),
        "A request without its NUL gets its reply after this many seconds.",
        "0.15 s is about one round trip, long enough for a NUL in a packet of its own and too short to notice.",
    )
    linger_timeout: float = setting(
        1.0,
        number(0.05, 60),
        "After a reply, the server reads and discards what the client still sends for at most this many seconds, then "
        "closes the connection.",
        "Without this, unread bytes would make the kernel send RST, which can destroy the reply on its way; 1 s is "
        "several round trips.",
    )
    linger_bytes: int = setting(
        65536,
        number(0, 2**31, whole=True),
        "After a reply, the server reads and discards at most this many bytes before it closes the connection.",
        "A policy client sends nothing after its request, so 64 KiB is ample, and it bounds what other clients cost.",
    )
    reply_timeout: float = setting(
        10.0,
        number(0.05, 3600),
        "A client that reads slowly must read the rest of its reply within this many seconds.",
        "10 s are enough for the largest policy (1 MiB) at 1 Mbit/s.",
    )
    tcp_user_timeout: float = setting(
        30.0,
        number(0.05, 3600, off=0),
        "The kernel drops a reply, or what is left of a session that has ended, if the peer acknowledges nothing for "
        "this many seconds (TCP_USER_TIMEOUT); 0 leaves it to the kernel, which may keep it for minutes.",
        "30 s are longer than a phone takes to change its cell or Wi-Fi; open sessions are not affected.",
    )
    first_byte_timeout: float = setting(
        1.0,
        number(0.01, 3600),
        "On a shared port, a client that has sent nothing for this many seconds is relayed to the upstream, which may "
        "be the side that speaks first.",
        "Policy clients send their request at once; every client of an application that speaks first waits this long.",
    )
    tls_handshake_timeout: float = setting(
        5.0,
        number(0.05, 3600),
        "A client must complete its TLS handshake within this many seconds; bytes that arrive meanwhile do not extend "
        "the time.",
        "5 s are several round trips of a mobile network, a lost packet included.",
    )
    connect_timeout: float = setting(
        3.0,
        number(0.05, 3600),
        "An upstream must accept a connection within this many seconds.",
        "3 s leave time for a lost SYN, which the kernel sends again after 1 s.",
    )
    silent_timeout: float = setting(
        120.0,
        number(0.05, 10_000_000, off=0),
        "A relayed session in which neither side has sent a byte since it began is closed after this many seconds; 0 "
        "means never.",
        "The side that speaks first does so at once, or after a look-up of the client's name, which may take a minute; "
        "a silent client holds its place for 120 s and not for idle_timeout.",
    )
    idle_timeout: float = setting(
        3600.0,
        number(0.05, 10_000_000, off=0),
        "A relayed session without traffic in either direction for this many seconds is closed; 0 means never.",
        "One hour suits turn-based games; NAT devices forget idle connections sooner.",
    )
    max_duration: float = setting(
        0.0,
        number(0.05, 10_000_000, off=0),
        "A relayed session is closed after this many seconds, however busy it is; 0 means never.",
        "It is off because a game may go on for days.",
    )
    websocket_ping: float = setting(
        30.0,
        number(0.05, 3600, off=0),
        "A WebSocket client gets a ping within this many seconds if it has sent nothing, or got nothing, and its "
        "session ends if it sends nothing for as long after the ping; 0 means never.",
        "30 s keep a session open through proxies, which close idle ones after 60 s and more.",
    )
    websocket_message: int = setting(
        16_777_216,
        number(125, 2**31, whole=True),
        "A WebSocket message may have this many bytes, uncompressed; a larger one ends the session (close code 1009).",
        "16 MiB are more than games send; a message is relayed as it comes, so it takes no memory of its size.",
    )
    http_idle_timeout: float = setting(
        75.0,
        number(0.05, 3600),
        "An HTTP connection that has carried RTMPT is closed when no request has come on it for this many seconds.",
        "75 s are longer than nginx and varnish keep a connection in reserve (60 s), so no proxy sends a request on "
        "one that is being closed: none of them repeats a POST.",
    )
    rtmpt_hold: float = setting(
        0.5,
        number(0.001, 4.999, off=0),
        "A poll of RTMPT waits at most this many seconds for bytes from the upstream before it gets a reply without "
        "any; 0 means that it does not wait.",
        "Adobe's servers waited as long; without it some clients poll thousands of times a second, and proxies do not "
        "wait many seconds for a reply.",
    )
    rtmpt_gap: float = setting(
        2.0,
        number(0.05, 60),
        "A request of RTMPT that has not come, while later ones have, is waited for this many seconds, then left out.",
        "2 s leave time for a packet that was lost; a client does not send the request again.",
    )
    rtmpt_session_timeout: float = setting(
        15.0,
        number(0.2, 3600),
        "An RTMPT session ends, and its connection to the upstream with it, when its client has sent no request for "
        "this many seconds.",
        "Clients poll every second and more often; 15 s leave time for another connection through the proxy.",
    )
    rtmpt_buffer: int = setting(
        262_144,
        number(4096, 2**28, whole=True),
        "An RTMPT session holds at most this many bytes of requests that its upstream has not taken, then its client "
        "waits; and as many bytes of requests that came before their turn, then it gets 503.",
        "256 KiB are a second of video at 2 Mbit/s. What the upstream sends is held by the kernel until it is fetched.",
    )
    rtmpt_body: int = setting(
        1_048_576,
        number(4096, 2**21, whole=True),
        "A request of RTMPT may have a body of this many bytes; a longer one gets 413.",
        "1 MiB is more than clients send at once, and a body is held in memory until it is complete.",
    )

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            f.metadata["type"].read(f.name, getattr(self, f.name))


@dataclass(frozen=True)
class ConnectionLimits:
    """How many connections the whole server holds, over all its listeners, and how it counts them by address."""

    max_connections: int = setting(
        0,
        number(0, 2**30, whole=True),
        "All workers together hold at most this many connections; 0 means as many as their file descriptors allow. At "
        "the limit a connection that is waiting is closed for a new one, of the client address that has most of them.",
        "It is off because the descriptor limit protects the server already. Workers do not wait for each other, so a "
        "limit may be exceeded by 32 for each worker after the first.",
    )
    max_worker_connections: int = setting(
        0,
        number(0, 2**20, whole=True),
        "Each worker holds at most this many connections; 0 means as many as its file descriptors allow.",
        "It is off because the descriptor limit protects the worker already. Unlike max_connections it is exact.",
    )
    max_address_connections: int = setting(
        1000,
        number(0, 60_000, whole=True),
        "One client address holds at most this many connections at a time, relayed sessions not counted; 0 means any "
        "number. At the limit a waiting connection of the same address is closed for a new one, so it refuses a client "
        "only if none of them waits.",
        "A policy request is over in milliseconds, so 1000 at a time are ample for a company behind one address, and "
        "they keep a single address from using all descriptors.",
    )
    max_address_sessions: int = setting(
        0,
        number(0, 60_000, whole=True),
        "One client address has at most this many relayed sessions at a time; 0 means any number.",
        "It is off because a school, a carrier or a container network may be one address for all of its players.",
    )
    max_address_rate: int = setting(
        0,
        number(0, 60_000, whole=True),
        "One client address opens at most this many connections within a second; 0 means any number.",
        "It is off because a reply is cheap and many clients may share one address.",
    )
    max_sessions: int = setting(
        10_000,
        number(0, 1_000_000, whole=True),
        "Each worker relays at most this many sessions at a time, including those that still connect to an upstream. "
        "Each listener that relays has a reserve: half of them, divided by the number of such listeners.",
        "A session costs 7 KB of memory and two file descriptors, so 10,000 take 70 MB.",
    )
    max_slow_replies: int = setting(
        10_000,
        number(0, 1_000_000, whole=True),
        "Each worker sends at most this many replies at a time to clients that read slowly.",
        "A slow reply costs 4 KB of memory, so 10,000 take 40 MB.",
    )
    max_handshakes: int = setting(
        1000,
        number(1, 1_000_000, whole=True),
        "Each worker has at most this many TLS handshakes in progress; at the limit one that waits for its client is "
        "closed for a new one.",
        "A handshake costs some 30 KB of memory until it is complete, so 1,000 take 30 MB.",
    )
    ipv4_prefix: int = setting(
        32,
        number(8, 32, whole=True),
        "IPv4 clients whose addresses agree in this many leading bits count as one address.",
        "32 counts each address separately.",
    )
    ipv6_prefix: int = setting(
        64,
        number(16, 128, whole=True),
        "IPv6 clients whose addresses agree in this many leading bits count as one address.",
        "A subscriber has at least a /64 and can use any address in it.",
    )
    address_table_size: int = setting(
        65_536,
        number(8, 2**20, whole=True),
        "Each worker counts connections of at most this many addresses at a time, rounded up to a power of two, in 24 "
        "bytes of memory for each. When the table is full the least active addresses are evicted; no client is refused "
        "because it is full.",
        "65,536 entries take 1.5 MB for a worker.",
    )
    exempt_networks: tuple[Network, ...] = setting(
        (),
        NETWORKS,
        "Addresses in these networks have no max_address_connections, max_address_rate or max_address_sessions.",
        "It is empty because few servers know such addresses; name a proxy, a container network or a load balancer "
        "that hides its clients' addresses here.",
        (ip_network("172.17.0.0/16"),),
    )

    def __post_init__(self) -> None:
        for f in dataclasses.fields(self):
            if f.metadata["type"] is not NETWORKS:
                f.metadata["type"].read(f.name, getattr(self, f.name))
