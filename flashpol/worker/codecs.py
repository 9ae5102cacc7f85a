"""The codec that a listener's clients get, by its settings."""

from flashpol._fastpath import CodecFactory
from flashpol.config import Listener
from flashpol.serving.plan import Plan


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
