"""Listen sockets: bind them, set their options, read their accept queues."""

import errno
import os
import socket
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from flashpol.config import Address, Config, ConfigError, Listener

_TCP_INFO_UNACKED = struct.Struct("=24xII")  # struct tcp_info: tcpi_unacked and tcpi_sacked follow 8 bytes and 4 words


def bind(
    address: Address,
    count: int,
    backlog: int,
    beside: Sequence[socket.socket] = (),
    prepare: Callable[[socket.socket], object] = lambda _: None,
) -> list[socket.socket]:
    """`count` listen sockets on one address, with one accept queue each. Raises ConfigError, which says what to do.

    The first is bound alone: SO_REUSEPORT from the start would silently share the port with another server of the same
    user. It joins the others' group between bind and listen. beside: open sockets of this server on that address.
    prepare: called with each new socket before it listens.
    """
    sockets: list[socket.socket] = []
    try:
        for sock in beside if count else ():
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
        for _ in range(count):
            group = [*beside, *sockets]
            if group:
                address = bound_address(group[0])
            sockets.append(_bound(address, shared=bool(group)))
        for sock in sockets:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, len(beside) + count > 1)
        for sock in sockets:
            prepare(sock)
            sock.listen(backlog)
    except OSError as error:
        for sock in sockets:
            sock.close()
        raise ConfigError(explain(address, error)) from None
    return sockets


def bind_instead(old: socket.socket, address: Address, backlog: int, beside: Sequence[socket.socket]) -> socket.socket:
    """A new listen socket in place of `old`, which is closed; `beside` as for `bind`. Raises ConfigError, and then the
    old one is still open."""
    new = None
    try:
        for sock in (old, *beside):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, True)
        new = _bound(address, shared=True)
        new.listen(backlog)
    except OSError as error:
        if new:
            new.close()
        raise ConfigError(explain(address, error)) from None
    old.close()
    new.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, bool(beside))
    return new


def _bound(address: Address, shared: bool) -> socket.socket:
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            # [::] serves IPv4 too, whatever net.ipv6.bindv6only says; no other IPv6 address can.
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, address.host != "::")
        if shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(_sockaddr(address))
    except OSError:
        sock.close()
        raise
    return sock


def _sockaddr(address: Address) -> tuple[str, int] | tuple[str, int, int, int]:
    """As bind(2) takes it. Raises OSError for an interface that does not exist."""
    host, _, interface = address.host.partition("%")
    if not interface:
        return host, address.port
    try:
        return host, address.port, 0, socket.if_nametoindex(interface)
    except OSError:  # Python's has no number
        if interface.isdecimal():
            return host, address.port, 0, int(interface) % 2**32
        raise OSError(errno.ENODEV, os.strerror(errno.ENODEV)) from None


def explain(address: Address, error: OSError) -> str:
    """One line: what is wrong with the address, and what to do."""
    interface = address.host.partition("%")[2]
    known = {
        errno.EADDRINUSE: "in use by another server; stop it (ss -ltnp shows which) or choose another port",
        errno.EACCES: (
            f"no right to bind a port below 1024; grant CAP_NET_BIND_SERVICE, use systemd socket activation "
            f"(systemd:NAME), redirect {address.port} to a higher port (nftables), or choose another port"
        ),
        errno.EADDRNOTAVAIL: "not an address of this host (`ip address` lists them)",
        errno.ENODEV: f"there is no network interface {interface!r} (`ip link` lists them)",
        errno.EAFNOSUPPORT: f"this host has no IPv6; listen on 0.0.0.0:{address.port}",
    }
    text = known.get(error.errno or 0) or f"cannot listen: {error.strerror}"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        text += "; raise ulimit -n, or use fewer workers or listeners"
    return f"{address}: {text}"


def bound_address(sock: socket.socket) -> Address:
    host, port, *more = sock.getsockname()
    interface = more[1] if more else 0
    if interface:
        with suppress(OSError):  # it was removed
            interface = socket.if_indextoname(interface)
        host = f"{host}%{interface}"
    return Address(host, port)


def prepare_listening(sock: socket.socket, *, user_timeout: float, keepalive: int | None = None) -> None:
    """Set the options that connections inherit when they are accepted.

    user_timeout: seconds for which a client may acknowledge nothing before the kernel drops what it is to get; 0: as
    the kernel likes, which may be 15 minutes. keepalive: of a listener that relays, seconds of silence before the first
    keepalive probe, 0: none.
    """
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(user_timeout * 1e3))
    if keepalive is not None:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, keepalive > 0)
    if keepalive:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, keepalive)


def preparation_for(config: Config, listener: Listener) -> Callable[[socket.socket], None]:
    """`prepare_listening` with the settings of this listener."""
    return partial(
        prepare_listening,
        user_timeout=config.timeouts(listener).tcp_user_timeout,
        keepalive=listener.keepalive if listener.relays else None,
    )


def accept_queue(sock: socket.socket) -> tuple[int, int]:
    """(connections waiting to be accepted, limit) of a listening socket, from the kernel (tcp(7), TCP_INFO)."""
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _TCP_INFO_UNACKED.size)
    length, limit = _TCP_INFO_UNACKED.unpack(info)
    return length, limit
