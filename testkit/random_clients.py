"""Random clients of a real server that has every kind of listener, and limits so small that all of them are reached.

`Scene` is the server; `Client.act` is one connection of a random kind. Everything follows from
a seed, except the time that the kernel and the server take. Each connection checks what it receives: a policy client
receives its whole reply or nothing, and a game receives no byte that it does not expect. The same holds inside TLS.
"""

import asyncio
import contextlib
import random
import socket
import struct
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

from testkit.channels import Channel, TlsChannel
from testkit.clients import BARE, REQUEST
from testkit.polling import eventually
from testkit.processes import Flashpol
from testkit.random_applications import GREETING
from testkit.tls_serving import AVAILABLE, issue

POLICY = b'<cross-domain-policy><allow-access-from domain="*.example.com" to-ports="7000"/></cross-domain-policy>'
SILVERLIGHT = (
    b'<?xml version="1.0"?><access-policy><cross-domain-access><policy><allow-from><domain uri="*"/></allow-from>'
    b'<grant-to><socket-resource port="4502" protocol="tcp"/></grant-to></policy></cross-domain-access></access-policy>'
)
LARGE = POLICY + b" " * (1_000_000 - len(POLICY))
WORKERS = 2
# Listener -> lines of its table. {echo}, {speaker}, {dead}, {refusing}: the addresses of applications.
LISTENERS = {
    "policy": "",
    "silverlight": 'policy = "silverlight"\ndialect = "silverlight"',
    "large": 'policy = "large"',
    "hasty": 'upstream = "{echo}"\nrequest_timeout = 0.2\nfirst_byte_timeout = 0.05\n'
    "linger_timeout = 0.1\nlinger_bytes = 100\nidle_timeout = 0.2\nmax_duration = 0.5\nsilent_timeout = 0.1",
    "proxied": 'proxy_protocol = true\nproxy_networks = ["127.0.0.0/9", "127.250.0.0/16"]',
    "games": 'upstream = "{echo}"',
    "named": 'upstream = "{echo}"\nproxy_protocol = true\nproxy_networks = ["127.0.0.0/8"]\nupstream_proxy = "v1"',
    "chat": 'upstream = "{speaker}"',
    "dead": 'upstream = "{dead}"',
    "refusing": 'upstream = ["{refusing}", "{refusing2}"]',
    "rated": 'upstream = "{echo}"\nconnect_rate = 20\nbalance = "least-connections"',
    "denied": 'deny_networks = ["127.3.1.0/29"]',
}
SECURE = {  # those with TLS
    "secure": 'tls = ["ecdsa", "wild"]\ntls_handshake_timeout = 0.3',
    "secure_large": 'policy = "large"\ntls = ["ecdsa"]\ntls_profile = "flash"',
    "secure_games": 'upstream = "{echo}"\ntls = ["rsa", "ecdsa"]\ntls_tickets = 2',
    "secure_chat": 'upstream = "{speaker}"\ntls = ["ecdsa"]\ntls_only = true',
    "secure_named": 'upstream = "{echo}"\nproxy_protocol = true\nproxy_networks = ["127.0.0.0/8"]\n'
    'upstream_proxy = "v1"\ntls = ["ecdsa"]\ntls_strict_sni = true',
}
TLS_ONLY = "secure_chat"
if AVAILABLE:
    LISTENERS |= SECURE
REPLIES = {"silverlight": SILVERLIGHT, "large": LARGE + b"\0", "secure_large": LARGE + b"\0"}
PROXIED = ("proxied", "named", "secure_named")
SHARED = ("hasty", "games", "named", "chat", "dead", "refusing", "rated", "secure_games", "secure_chat", "secure_named")
SPEAKS_FIRST = ("chat", "secure_chat")
TIMEOUTS = """
request_timeout = 0.6
terminator_grace = 0.05
linger_timeout = 0.3
linger_bytes = 5000
reply_timeout = 1.0
first_byte_timeout = 0.2
connect_timeout = 0.4
silent_timeout = 0.5
idle_timeout = 1.0
max_duration = 3.0
"""
# Descriptors of each process; a worker has about 45 before its first connection.
FILES = 90
ENDED = OSError  # what an action finds that the server ended: no fault, since limits and timeouts are small
ACTION_SECONDS = 4.0  # of a client; longer than any of the server's timeouts


def limits(generator: random.Random) -> str:
    """Random limits. Each of them is off at times, so that those behind it are reached too."""
    total, worker = generator.choice([(0, 0), (0, 0), (40, 0), (0, 25), (70, 40), (100, 60)])

    def one_of(*values: int) -> int:
        return generator.choice(values)

    return f"""
max_connections = {total}
max_worker_connections = {worker}
max_address_connections = {one_of(0, 3, 8, 20)}
max_address_sessions = {one_of(0, 2, 6)}
max_address_rate = {one_of(0, 0, 5, 50)}
max_sessions = {one_of(6, 12, 30, 1000)}
max_slow_replies = {one_of(1, 2, 1000)}
max_handshakes = {one_of(1, 3, 1000)}
address_table_size = {one_of(8, 64, 4096)}
exempt_networks = ["127.9.0.0/16"]
"""


class Scene:
    """The server, its configuration, and the clients' counts."""

    def __init__(self, folder: Path, seed: int, addresses: dict[str, str]) -> None:
        self.folder, self.addresses = folder, addresses
        self.generator = random.Random(seed)
        self.opened: Counter[str] = Counter()  # connections by listener
        self.whole: Counter[str] = Counter()  # whole replies by listener
        self.relayed = 0  # bytes compared
        self.wrong: list[str] = []
        for name, content in (("policy", POLICY), ("silverlight", SILVERLIGHT), ("large", LARGE)):
            (folder / f"{name}.xml").write_bytes(content)
        certificates = {
            "ecdsa": issue("games.test"),
            "rsa": issue("games.test", key="rsa"),
            "wild": issue("*.wild.test"),
        }
        for name, pair in certificates.items():
            (folder / f"{name}.pem").write_bytes(pair.chain + pair.key)
        self.configure()
        files = ["prlimit", f"--nofile={FILES}:{FILES}"]
        self.server = Flashpol("-c", folder / "flashpol.toml", listen=(), workers=None, admin=None, under=files)

    def configure(self) -> None:
        """Write a configuration with other limits."""
        lines = [
            "[server]",
            f"workers = {WORKERS}",
            'admin = "127.0.0.1:0"',
            "stall_timeout = 20",  # a busy machine is no stalled worker
            "drain_timeout = 1",
            "shutdown_timeout = 1",
            f"access_log = {self.generator.choice([0, 0.1])}",
            TIMEOUTS,
            limits(self.generator),
            *(f'[policies.{name}]\nfile = "{name}.xml"' for name in ("policy", "silverlight", "large")),
        ]
        if AVAILABLE:
            lines += [f'[certificates.{name}]\nchain = "{name}.pem"' for name in ("ecdsa", "rsa", "wild")]
        for name, options in LISTENERS.items():
            lines += ["[[listeners]]", f'name = "{name}"', 'address = "127.0.0.1:0"']
            lines += [] if "policy =" in options else ['policy = "policy"']
            lines.append(options.format(**self.addresses))
        (self.folder / "flashpol.new").write_text("\n".join(lines) + "\n")
        (self.folder / "flashpol.new").rename(self.folder / "flashpol.toml")

    def place(self, listener: str) -> tuple[str, int]:
        return self.server.places[[*LISTENERS].index(listener)]

    def reply(self, listener: str) -> bytes:
        return REPLIES.get(listener, POLICY + b"\0")

    async def wander(self, seed: int, end: float) -> None:
        """Connections one after the other until `end`, of the event loop's clock."""
        generator = random.Random(seed)
        while asyncio.get_running_loop().time() < end:
            async with connection(self, generator) as client:
                await client.act()
            await asyncio.sleep(generator.expovariate(20))

    async def at_rest(self) -> None:
        """Wait until nothing is open, in old workers too."""

        def rest() -> bool:
            metrics = self.server.metrics()
            gauges = ("connections_open", "draining_workers", "accept_queue_length")
            return not any(map(metrics.total, gauges)) and metrics.total("worker_up") == WORKERS

        await asyncio.to_thread(eventually, rest, "the end of all connections")


@contextlib.asynccontextmanager
async def connection(scene: Scene, generator: random.Random) -> AsyncIterator["Client"]:
    """A client at a random listener, from a random address. It is closed with FIN or RST."""
    secure = [name for name in SECURE if name in LISTENERS]
    listener = generator.choice([*LISTENERS, *secure, "large", "large"])  # slow replies take time
    with socket.socket() as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if generator.random() < (0.8 if "large" in listener else 0.2):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)  # else the kernel takes a megabyte at once
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.bind((random_address(generator), 0))
        sock.connect(scene.place(listener))  # on loopback, and with a long accept queue, it does not wait
        scene.opened[listener] += 1
        sock.setblocking(False)
        client = Client(scene, listener, sock, generator)
        yield client
        if generator.random() < 0.3:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def random_address(generator: random.Random) -> str:
    """Often one of a few, at times one that is exempt or denied, else any."""
    return generator.choices(
        [
            "127.3.0.1",
            f"127.3.1.{generator.randint(1, 10)}",
            f"127.9.0.{generator.randint(1, 3)}",
            f"127.{generator.randint(4, 200)}.{generator.randint(0, 255)}.{generator.randint(1, 254)}",
        ],
        [25, 30, 15, 30],
    )[0]


class Client:
    """One connection."""

    def __init__(self, scene: Scene, listener: str, sock: socket.socket, generator: random.Random) -> None:
        self.scene, self.listener, self.sock, self.random = scene, listener, sock, generator
        self.channel = Channel(sock)
        self.header = b""
        self.inside = False  # TLS

    async def act(self) -> None:
        """One action, whatever the server does to it."""
        actions = [self.ask, self.ask, self.leave, self.say_nothing, self.never_read, self.garbage]
        if self.listener in SHARED:
            actions += [self.play, self.play, self.play, self.press]
        action = self.random.choice(actions)
        try:
            async with asyncio.timeout(ACTION_SECONDS):
                if self.listener in PROXIED:
                    await self.send_header()
                if self.listener in SECURE and self.random.random() < 0.8:
                    await self.enter()
                await action()
        except ENDED:
            pass
        except AssertionError as error:
            self.scene.wrong.append(f"{self.listener} {action.__name__}: {error}")

    async def enter(self) -> None:
        """TLS from here on."""
        channel = TlsChannel(self.sock, self.random)
        await channel.handshake()
        self.channel, self.inside = channel, True

    async def send(self, data: bytes) -> None:
        await self.channel.send(data)

    async def receive(self, size: int = 1 << 16) -> bytes:
        return await self.channel.receive(size)

    async def send_split(self, data: bytes) -> None:
        while data:
            size = self.random.randint(1, 40)
            await self.send(data[:size])
            data = data[size:]
            await asyncio.sleep(self.random.choice([0, 0, 0.002, 0.02]))

    async def pause(self) -> None:
        await asyncio.sleep(self.random.choice([0, 0.01, 0.1, 0.4]))

    async def send_header(self) -> None:
        """A PROXY header: a right one, or, of a client that then expects nothing, a wrong one."""
        source = f"192.0.2.{self.random.randint(1, 20)}"
        port = self.random.randint(1, 65535)
        self.header = f"PROXY TCP4 {source} 198.51.100.1 {port} 843\r\n".encode()
        addresses = socket.inet_aton(source) + socket.inet_aton("198.51.100.1") + struct.pack("!HH", port, 843)
        binary = b"\r\n\r\n\0\r\nQUIT\n" + b"\x21\x11" + struct.pack("!H", len(addresses)) + addresses
        wrong = [b"PROXY TCP4 here there 1 2\r\n", b"PROXY " + b"x" * 200, binary[:13] + b"\xff" + binary[14:], b""]
        sent = self.random.choices([self.header, binary, self.random.choice(wrong)], [45, 35, 20])[0]
        if sent in wrong:
            self.header = b""
        if self.random.random() < 0.3:
            await self.send_split(sent)
        else:
            await self.send(sent)

    # ----------------------------------------------------------------------------------------------------- policies

    async def ask(self) -> None:
        """A request in one of many forms. The reply comes whole or not at all, but for a slow one.

        A shared port relays a request that comes late, which it may do whenever the machine is busy. It is echoed then.
        """
        terminated = BARE if self.listener == "silverlight" else REQUEST
        form = self.random.choice(["whole", "split", "bare", "fin", "more", "late"])
        more = self.random.randbytes(self.random.randint(1, 20_000)) if form == "more" else b""
        request = (BARE if form in ("bare", "fin") else terminated) + more
        if form == "late":
            await self.pause()
        await (self.send_split if form == "split" else self.send)(request)
        if form == "fin":
            self.channel.shutdown()
        expected, received = self.scene.reply(self.listener), bytearray()
        slow = self.random.random() < 0.3
        try:
            while data := await self.receive(1000 if slow else 1 << 16):
                received += data
                if slow:
                    await self.pause()
        except ENDED:
            pass
        if self.listener in PROXIED and not self.header:
            return
        if received == expected:
            self.scene.whole[self.listener] += 1
            assert not self.inside or self.channel.end != "fin", "a whole reply and FIN without close_notify"
        partly = "large" in self.listener or slow
        right = expected.startswith(received) if partly else received in (b"", expected)
        right |= self.listener in SHARED and self.echo(request).startswith(received)
        assert right, f"{form} received {bytes(received[:100])!r}, {len(received)} bytes"

    async def garbage(self) -> None:
        """Bytes that are no request."""
        first = self.random.choice([b"\xff", b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01", b"\x03", b"<policy-file-req"])
        data = first + self.random.randbytes(self.random.choice([0, 10, 10_000]))
        if self.inside and self.random.random() < 0.5:
            await Channel(self.sock).send(data)  # no record of TLS
        else:
            await self.send(data)
        await self.receive()

    async def say_nothing(self) -> None:
        if first := self.random.choice([b"", b"", BARE[:1], BARE[:21]]):
            await self.send(first)
        await self.receive()

    async def leave(self) -> None:
        """Close at some point of a request."""
        await self.send(REQUEST[: self.random.randint(0, len(REQUEST))])
        await self.pause()

    async def never_read(self) -> None:
        await self.send(REQUEST * self.random.choice([1, 1, 100]))
        await asyncio.sleep(self.random.random() * 2)

    # ------------------------------------------------------------------------------------------------------- games

    def echo(self, said: bytes | bytearray) -> bytes:
        """What the application sends when it has received that."""
        return (GREETING if self.listener in SPEAKS_FIRST else self.header) + said

    async def play(self) -> None:
        """Words that are echoed, then perhaps a half-close. What arrives is compared byte for byte."""
        said, received = bytearray(), bytearray()
        if self.listener in SPEAKS_FIRST and self.random.random() < 0.5:
            received += await self.receive()
            self.compare(received, b"")
        for number in range(self.random.randint(1, 5)):
            word = self.random.randbytes(self.random.choice([1, 100, 5000, 60_000]))
            if not number:
                first = [b"e", b"<policy-file-requests/>", b"<", b"GET /"]
                if self.listener not in SECURE:  # where it would begin TLS
                    first.append(b"\x16\x03\x01")
                word = self.random.choice(first) + word
            said += word
            await self.send(word)
            expected = len(self.echo(said))
            while len(received) < expected and (data := await self.receive()):
                received += data
                self.compare(received, said)
            await self.pause()
        if self.random.random() < 0.5:
            self.channel.shutdown()
            while data := await self.receive():
                received += data
            self.compare(received, said)
        self.scene.relayed += len(received)

    def compare(self, received: bytearray, said: bytes | bytearray) -> None:
        if self.listener in PROXIED and not self.header:
            return
        expected = self.echo(said)
        assert expected.startswith(received), f"{len(received)} bytes, wrong after {_agreeing(expected, received)}"

    async def press(self) -> None:
        """Send much and read nothing, so that buffers fill, then read some of it."""
        data = b"e" + self.random.randbytes(1000) * self.random.choice([10, 300, 2000])
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1.0):
                await self.send(data)
        received = bytearray()
        for _ in range(self.random.randint(0, 20)):
            part = await self.receive()
            received += part
            self.compare(received, data)
            if not part:
                break


def _agreeing(one: bytes, other: bytes | bytearray) -> int:
    """How many bytes at the beginning are the same."""
    return next((n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other)))
