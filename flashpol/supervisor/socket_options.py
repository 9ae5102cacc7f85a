"""What a worker can change on a listen socket that outlives it, and how the arbiter puts it back.

A worker and the arbiter have the same socket, so what a worker does to it stays when the worker is gone, and
connections inherit most of it when they are accepted. `Options.of` reads a socket that no worker has had, `restore`
compares it with that:

    the queue               listen() with another backlog, shutdown(): listen() again
    descriptor flags        O_NONBLOCK, and O_ASYNC with a process to signal
    BPF programs            SO_ATTACH_REUSEPORT_*BPF decides for all sockets of the address which of them gets a client;
                            SO_ATTACH_FILTER drops packets
    the options of `TABLE`  all that an unprivileged process can set and getsockopt(2) shows, if it changes what happens
                            to clients

Three things cannot be put back. A filter that was locked (SO_LOCK_FILTER), a port that the kernel had chosen and that
was given up by shutdown(), and a socket that was connected: then the socket has to be replaced. Keys of TCP-MD5 and
TCP-AO cannot even be seen; docs/security.md says what they do.
"""

import errno
import fcntl
import os
import socket
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, cast

from flashpol.config import Address
from flashpol.process.sockets import bound_address

Option = tuple[int, int]  # level and name
Values = Mapping[Option, bytes]

_SOCKET, _TCP, _IP, _IPV6 = socket.SOL_SOCKET, socket.IPPROTO_TCP, socket.IPPROTO_IP, socket.IPPROTO_IPV6
# Python 3.11 has no names for these.
_SO_DETACH_FILTER, _SO_DETACH_REUSEPORT_BPF, _SO_BUF_LOCK = 27, 68, 72
_LINGER = (_SOCKET, socket.SO_LINGER)
_MAXSEG, _WINDOW_CLAMP = (_TCP, socket.TCP_MAXSEG), (_TCP, socket.TCP_WINDOW_CLAMP)
_INTERFACE = (_SOCKET, 62)  # SO_BINDTOIFINDEX: clients of other interfaces get another socket, or none
_BUFFERS = ((_SOCKET, socket.SO_RCVBUF), (_SOCKET, socket.SO_SNDBUF))
_CONGESTION, _IP_OPTIONS, _RTHDR = (_TCP, socket.TCP_CONGESTION), (_IP, socket.IP_OPTIONS), (_IPV6, 57)
# Options that are no integer: the size of their buffer. SO_LINGER has its time in a second one.
_SIZES = {_CONGESTION: 16, _IP_OPTIONS: 40, _RTHDR: 256}
_INT = struct.Struct("i")
_NO_CLAMP = _INT.pack(65535 << 14)  # the largest window that TCP has

TABLE: Final[tuple[Option, ...]] = (
    # How a connection is made, and by which socket.
    (_SOCKET, socket.SO_INCOMING_CPU),
    _INTERFACE,
    (_TCP, socket.TCP_DEFER_ACCEPT),
    (_TCP, socket.TCP_FASTOPEN),
    (_TCP, 34),  # TCP_FASTOPEN_NO_COOKIE
    (_TCP, socket.TCP_SYNCNT),
    (_TCP, 27),  # TCP_SAVE_SYN
    (_IP, 21),  # IP_MINTTL: packets that have come further are dropped
    (_IPV6, 73),  # IPV6_MINHOPCOUNT
    # What a connection inherits: its packets and where they go,
    (_SOCKET, socket.SO_DONTROUTE),
    (_SOCKET, socket.SO_PRIORITY),
    (_IP, socket.IP_TOS),
    (_IP, socket.IP_TTL),
    (_IP, 10),  # IP_MTU_DISCOVER
    _IP_OPTIONS,
    (_IPV6, socket.IPV6_UNICAST_HOPS),
    (_IPV6, 67),  # IPV6_TCLASS
    (_IPV6, 23),  # IPV6_MTU_DISCOVER
    (_IPV6, 33),  # IPV6_FLOWINFO_SEND
    (_IPV6, 70),  # IPV6_AUTOFLOWLABEL
    _RTHDR,
    _MAXSEG,
    _WINDOW_CLAMP,
    _CONGESTION,
    # when they are sent,
    (_TCP, socket.TCP_NODELAY),
    (_TCP, socket.TCP_CORK),
    (_TCP, 37),  # TCP_TX_DELAY
    (_SOCKET, 47),  # SO_MAX_PACING_RATE
    (_TCP, 44),  # TCP_RTO_MAX_MS, Linux 6.15
    (_TCP, 45),  # TCP_RTO_MIN_US, Linux 6.15
    (_TCP, 46),  # TCP_DELACK_MAX_US, Linux 6.15
    # its end,
    _LINGER,
    (_TCP, socket.TCP_LINGER2),
    (_TCP, socket.TCP_USER_TIMEOUT),
    (_SOCKET, socket.SO_KEEPALIVE),
    (_TCP, socket.TCP_KEEPIDLE),
    (_TCP, socket.TCP_KEEPINTVL),
    (_TCP, socket.TCP_KEEPCNT),
    # and how it is read and written.
    *_BUFFERS,
    (_SOCKET, _SO_BUF_LOCK),  # whether the sizes are fixed; after them, which fix themselves. Linux 5.14
    (_SOCKET, socket.SO_RCVLOWAT),
    (_TCP, socket.TCP_NOTSENT_LOWAT),
    (_SOCKET, socket.SO_OOBINLINE),
    (_SOCKET, 37),  # SO_TIMESTAMPING
    (_SOCKET, 42),  # SO_PEEK_OFF
    (_SOCKET, 46),  # SO_BUSY_POLL
)


class _Recorder:
    """Takes the place of a socket, and keeps what is set."""

    def __init__(self) -> None:
        self.values: dict[Option, bytes] = {}

    def setsockopt(self, level: int, name: int, value: int) -> None:
        self.values[level, name] = _INT.pack(value)


def set_by(prepare: Callable[[socket.socket], object]) -> Values:
    """The options that a worker sets itself, by calling `prepare` with its listen socket."""
    recorder = _Recorder()
    prepare(cast(socket.socket, recorder))
    return recorder.values


def of_new_socket(family: int) -> Values:
    """The options of a socket that nothing has been done to yet."""
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        return _read(sock)


def _read(sock: socket.socket) -> Values:
    return {option: value for option in TABLE if (value := _get(sock, option)) is not None}


@dataclass(frozen=True)
class Options:
    """A listen socket as it should be."""

    address: Address
    name: object  # as getsockname(2) has it: an interface may get another name
    backlog: int
    values: Values

    @classmethod
    def of(cls, sock: socket.socket, backlog: int) -> "Options":
        return cls(bound_address(sock), sock.getsockname(), backlog, _read(sock))

    @classmethod
    def of_bound(cls, sock: socket.socket, backlog: int, values: Values) -> "Options":
        """Of a socket that was bound a moment ago, and may have been prepared already. values: of a new socket."""
        interface = _get(sock, _INTERFACE)  # a link-local address has one
        if interface is not None and interface != values.get(_INTERFACE):
            values = {**values, _INTERFACE: interface}
        return cls(bound_address(sock), sock.getsockname(), backlog, values)

    def restore(self, sock: socket.socket) -> str:
        """Make it so again. Returns why it cannot be, in a few words; empty if it could."""
        fcntl.fcntl(sock, fcntl.F_SETFL, os.O_NONBLOCK)
        _set(sock, (_SOCKET, _SO_DETACH_REUSEPORT_BPF), _INT.pack(0))
        if _set(sock, (_SOCKET, _SO_DETACH_FILTER), _INT.pack(0)) == errno.EPERM:
            return "its packet filter is locked"
        for option, value in self.values.items():
            if _get(sock, option) != value and (error := _restore_value(sock, option, value)):
                return f"option {option[1]} of level {option[0]} cannot be reset: {os.strerror(error)}"
        try:
            sock.listen(self.backlog)
        except OSError as error:
            return f"it cannot listen any more: {error.strerror}"
        # Again: a program belongs to the address, and a socket that was shut down had left it.
        _set(sock, (_SOCKET, _SO_DETACH_REUSEPORT_BPF), _INT.pack(0))
        return "" if sock.getsockname() == self.name else "it has lost its address"


def _get(sock: socket.socket, option: Option) -> bytes | None:
    """None: this kernel has no such option, or a socket of this family."""
    try:
        return sock.getsockopt(*option, _SIZES.get(option, _INT.size))
    except OSError:
        return None


def _set(sock: socket.socket, option: Option, value: bytes) -> int:
    """The error number; 0 if there was none."""
    try:
        sock.setsockopt(*option, value)
    except OSError as error:
        return error.errno or errno.EINVAL
    return 0


def _restore_value(sock: socket.socket, option: Option, value: bytes) -> int:
    if option in _BUFFERS:
        [number] = _INT.unpack(value)
        value = _INT.pack(number // 2)  # the kernel doubles what is set
    elif option == _LINGER:
        value += _INT.pack(0)
    elif option == _MAXSEG:
        value = _INT.pack(0)  # what it reads is a default, which is no value to set
    elif option == _WINDOW_CLAMP and not any(value):
        value = _NO_CLAMP  # a listening socket takes no 0
    return _set(sock, option, value)
