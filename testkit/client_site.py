"""flashpol with certificates, for real clients of TLS: a policy port, or a shared port in front of an application."""

from dataclasses import dataclass, field
from pathlib import Path

from testkit.own_ca import OwnCa, Pair
from testkit.processes import Flashpol

POLICY = b'<cross-domain-policy><allow-access-from domain="*.example.com" to-ports="7000"/></cross-domain-policy>'
HOSTS = ("localhost", "games.example.com", "chat.example.org")


@dataclass
class ClientSite:
    """Its listener has an ECDSA and an RSA certificate for each host; the first host's are for clients that name none.

    >>> with ClientSite(folder, ca).serve(upstream="127.0.0.1:7001", tls_profile="flash") as server:
    ...     server.place
    """

    folder: Path
    ca: OwnCa
    certificates: dict[str, Pair] = field(default_factory=dict)  # by the name in the configuration; made if empty

    def __post_init__(self) -> None:
        for host in () if self.certificates else HOSTS:
            ecdsa, rsa = self.ca.issue(host)
            self.certificates |= {host.replace(".", "-"): ecdsa, host.replace(".", "-") + "-rsa": rsa}
        (self.folder / "policy.xml").write_bytes(POLICY)

    def configuration(self, server: str = "", **listener: object) -> str:
        """server: lines of that table. Keywords are more settings of the listener, from Python's values."""
        blocks = [
            f"[certificates.{name}]\nchain = '{pair.chain}'\nkey = '{pair.key}'\n"
            for name, pair in self.certificates.items()
        ]
        # On a busy machine a client may send its request late; the listener would relay it as it is.
        patience = {"first_byte_timeout": 10} if "websocket" in listener else {}
        settings = {"name": "tls", "address": "127.0.0.1:0", "tls": [*self.certificates]} | patience | listener
        lines = [f"{name} = {toml(value)}\n" for name, value in settings.items()]
        tables = [f"[server]\n{server}\n", *blocks, '[policies.main]\nfile = "policy.xml"\n', "[[listeners]]\n"]
        return "".join([*tables, *lines])

    def serve(self, *arguments: str, server: str = "", **listener: object) -> Flashpol:
        path = self.folder / "flashpol.toml"
        path.write_text(self.configuration(server, **listener))
        return Flashpol("-c", path, *arguments, listen=())


def toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return f"[{', '.join(toml(item) for item in value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name} = {toml(item)}' for name, item in value.items())}}}"
    return f'"{value}"' if isinstance(value, str) else str(value)
