"""The servers under test: each on a port that the kernel picks, all with the same policy, on one CPU.

A server is a function that returns a context manager, within which it serves. A new peer is such a function, a function
that returns why it cannot run here, and a line in `PEERS`.
"""

from bench.servers import baselines as _baselines
from bench.servers import haproxy as _haproxy
from bench.servers import nginx as _nginx
from bench.servers import scripted as _scripted
from bench.servers.baselines import epoll, io_uring, one_segment
from bench.servers.haproxy import haproxy
from bench.servers.nginx import nginx, nginx_program
from bench.servers.ours import flashpol
from bench.servers.running import BACKLOG, POLICY, ROOT, SILENT_TIMEOUT, Peer, Server, free_port
from bench.servers.scripted import go, node, stream_server

__all__ = [
    "BACKLOG", "OURS", "PEERS", "PLAIN", "POLICY", "ROOT", "SILENT_TIMEOUT", "Peer", "Server",
    "epoll", "flashpol", "free_port", "go", "haproxy", "io_uring", "nginx", "nginx_program", "node", "one_segment",
    "stream_server",
]  # fmt: skip

OURS = "flashpol"
PLAIN = "C epoll"
PEERS = (
    Peer(OURS, flashpol, lambda: None),
    Peer(PLAIN, epoll, lambda: None),
    Peer("C epoll, one segment", one_segment, lambda: None),
    Peer("C io_uring", io_uring, _baselines.io_uring_missing),
    Peer("nginx", nginx, _nginx.missing),
    Peer("HAProxy", haproxy, _haproxy.missing),
    Peer("gevent StreamServer", stream_server, lambda: None),
    Peer("Go", go, _scripted.go_missing),
    Peer("node", node, _scripted.node_missing),
)
