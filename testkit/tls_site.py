"""A configuration file with certificates for `flashpol serve`, and what its metrics say of TLS."""

from pathlib import Path

from testkit.polling import eventually
from testkit.processes import Flashpol, Metrics
from testkit.tls_serving import Pair, issue

POLICY = b'<cross-domain-policy><allow-access-from domain="*.example.com" to-ports="7000"/></cross-domain-policy>'
REPLY = POLICY + b"\0"
ENDS = ("replies", "served", "relayed", "refused", "timeouts", "resets")


class TlsSite:
    """A folder with flashpol.toml: one listener, "games", with a certificate, "games", and plain text beside TLS."""

    def __init__(self, folder: Path, upstream: object = None) -> None:
        self.folder = folder
        self.config = folder / "flashpol.toml"
        self.upstream = upstream
        (folder / "policy.xml").write_bytes(POLICY)
        self.install(issue("games.test"))
        self.configure()

    def install(self, pair: Pair, name: str = "games") -> None:
        """Replace the certificate's files, each at once."""
        for kind, content in (("chain", pair.chain), ("key", pair.key)):
            new = self.folder / f"{name}.{kind}.new"
            new.write_bytes(content)
            new.chmod(0o600)
            new.rename(self.folder / f"{name}.{kind}")

    def configure(
        self,
        server: str = "",
        listener: str = "",
        certificates: tuple[str, ...] = ("games",),
        shutdown_timeout: float = 0.5,
    ) -> None:
        """server, listener: more lines of these tables."""
        lines = ["[server]", "reload_endpoint = true", f"shutdown_timeout = {shutdown_timeout}", "stall_timeout = 20"]
        lines += [server]
        lines += ["[policies.main]", 'file = "policy.xml"']
        for name in certificates:
            lines += [f"[certificates.{name}]", f'chain = "{name}.chain"', f'key = "{name}.key"']
        lines += ["[[listeners]]", 'name = "games"', 'address = "127.0.0.1:0"']
        lines += [f"tls = [{', '.join(map(repr, certificates))}]"] if certificates else []
        lines += [f'upstream = "{self.upstream}"'] if self.upstream else []
        self.config.write_text("\n".join([*lines, listener, ""]))

    def serve(self, **options: object) -> Flashpol:
        return Flashpol("-c", self.config, listen=(), **options)  # type: ignore[arg-type]


def settled(server: Flashpol) -> Metrics:
    """The metrics once nothing is open: each connection ended in exactly one way."""

    def look() -> Metrics | None:
        metrics = server.metrics()
        gauges = ("connections_open", "tls_connections_open", "tls_handshakes_open")
        return None if any(map(metrics.total, gauges)) else metrics

    metrics = eventually(look, "the end of all connections")
    assert metrics.total("connections_accepted_total") == sum(metrics.total(f"{end}_total") for end in ENDS)
    return metrics
