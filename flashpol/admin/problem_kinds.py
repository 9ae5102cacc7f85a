"""Every kind of problem that an operator may have, with its severities.

`problems`, `tls`, `websocket` and `rtmpt` find them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

# Clients are affected now, or will be within days unless somebody acts; or they may be.
ERROR, WARNING = "error", "warning"


class Refusals(NamedTuple):
    """Refusals of one reason: how bad they are, what happened, and the share of all connections that is a problem."""

    severity: str
    words: str
    share: float = 0.0


# Refusals that keep good clients out. One address that exceeds its limits may be an attacker, or a proxy in front of
# all clients. Strangers reach a port for proxies too, so few connections without a header are no problem.
REFUSALS_TO_REPORT = {
    "capacity": Refusals(ERROR, "refused: the workers were out of descriptors or memory"),
    "max_connections": Refusals(ERROR, "refused: max_connections or max_worker_connections was reached"),
    "max_sessions": Refusals(ERROR, "refused: max_sessions was reached"),
    "max_slow_replies": Refusals(ERROR, "refused: max_slow_replies was reached"),
    "max_handshakes": Refusals(ERROR, "refused: max_handshakes was reached"),
    "upstream": Refusals(ERROR, "refused: no upstream could be reached"),
    "crashed": Refusals(ERROR, "lost when a worker crashed"),
    **{
        reason: Refusals(WARNING, f"refused: their address had reached {reason}; the log names it")
        for reason in ("max_address_connections", "max_address_sessions", "max_address_rate")
    },
    "proxy_untrusted": Refusals(WARNING, "refused: they did not come from proxy_networks", 0.05),
    "proxy_malformed": Refusals(WARNING, "refused: they did not begin with a PROXY header", 0.05),
    "proxy_oversized": Refusals(WARNING, "refused: their PROXY header was too long", 0.05),
}
# Refusals that are meant: other protocols, denied networks, a stop of the server.
REFUSALS_AS_MEANT = ("http", "http_malformed", "tls", "tls_only", "rtmp", "rtmpe", "other", "network", "shutdown")
# Refusals that another kind of problem judges: `tls-handshakes`, with all handshakes that failed, and
# `websocket-origin`, by path.
REFUSALS_ELSEWHERE = ("tls_handshake", "origin")
# Every kind of problem, with its severities.
KINDS: Mapping[str, tuple[str, ...]] = {
    "reload": (ERROR,),
    "worker-down": (ERROR,),
    "worker-stalled": (ERROR,),
    "worker-late": (WARNING,),
    "worker-restarted": (WARNING,),
    "files": (WARNING,),
    "accept-queue": (WARNING,),
    "accept-errors": (ERROR,),
    **{f"refused-{reason}": (refusals.severity,) for reason, refusals in REFUSALS_TO_REPORT.items()},
    "upstream": (ERROR, WARNING),
    "connecting": (ERROR,),
    "ports": (ERROR,),
    "ports-low": (WARNING,),
    "certificate-expired": (ERROR,),
    "certificate-expiring": (ERROR, WARNING),
    "tls-handshakes": (WARNING,),
    "tls-old-clients": (WARNING,),
    "tls-unknown-names": (WARNING,),
    "websocket-upstream": (ERROR,),
    "websocket-origin": (WARNING,),
    "websocket-no-upgrade": (WARNING,),
    "websocket-malformed": (WARNING,),
    "websocket-pings": (WARNING,),
    "rtmpt-forwarding": (ERROR,),
    "rtmpt-ghosts": (WARNING,),
    "rtmpt-unknown": (WARNING,),
    "timeouts": (WARNING,),
    "slow": (WARNING,),
    "policy": (ERROR, WARNING),
    "certificate": (WARNING,),
    "websocket": (WARNING,),
    "admin-exposed": (WARNING,),
    "root": (WARNING,),
}
# Those that only another configuration, policy or certificate ends.
CONFIGURATION_KINDS = ("policy", "certificate", "websocket", "admin-exposed", "root")


@dataclass(frozen=True)
class Problem:
    """kind: one of KINDS, which do not change; severity: `ERROR`, clients are affected now, or `WARNING`."""

    kind: str
    severity: str
    message: str

    def __post_init__(self) -> None:
        if self.severity not in KINDS[self.kind]:
            raise ValueError(self.kind, self.severity)
