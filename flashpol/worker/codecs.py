"""What a listener's clients get beside policies, by its settings: TLS, and the rules about HTTP."""

import socket
from collections.abc import Sequence

from flashpol._fastpath import CodecFactory
from flashpol._websocket import Path
from flashpol.config import Listener
from flashpol.counters.refused_origins import RefusedOrigins
from flashpol.gateway.requests import Gateway
from flashpol.gateway.url_policies import UrlReplies
from flashpol.process.sockets import bound_address
from flashpol.serving.networks import compile_networks
from flashpol.serving.plan import Plan
from flashpol.worker.requests import HttpPort


def codec_of(listener: Listener, plan: Plan) -> CodecFactory | None:
    """TLS, if the listener has it."""
    if not listener.tls:
        return None
    from flashpol._tls import ServerContext  # a build without OpenSSL has none, and its Loader refuses `tls`

    certificates = [plan.certificates[name] for name in listener.tls]
    return ServerContext(
        [(each.chain, each.key, each.names) for each in certificates],
        profile=listener.tls_profile,
        strict_sni=listener.tls_strict_sni,
        tickets=listener.tls_tickets,
        ticket_keys=plan.ticket_keys,
    )


def http_port_of(
    number: int,
    listener: Listener,
    sock: socket.socket,
    plan: Plan,
    blocks: Sequence[memoryview],
    refused: Sequence[RefusedOrigins] = (),
) -> HttpPort:
    """The rules about HTTP of the plan's listener `number`, which listens on `sock`.

    blocks, refused: of its WebSocket paths.
    """
    timeouts = plan.config.timeouts(listener)
    address = bound_address(sock)
    port = listener.public_port or address.port
    files = UrlReplies(plan.url_policies[number]) if plan.url_policies and plan.url_policies[number] else None
    return HttpPort(
        Gateway(listener, plan.replies[number], port, files),
        tuple(
            (path, Path(block, max_message=timeouts.websocket_message, text=path.text, compression=path.compression))
            for path, block in zip(listener.websocket, blocks, strict=True)
        ),
        compile_networks(listener.forwarded_networks) if listener.forwarded_networks else None,
        compile_networks((), listener.deny_networks) if listener.deny_networks else None,
        refused,
    )
