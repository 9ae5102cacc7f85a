"""What a ClientHello offers: each offer is a connection, since a server chooses one version and one suite of it.

What the clients offer:

- AIR takes TLS 1.0 to 1.2, and no suite with AEAD (github.com/airsdk/Adobe-Runtime-Support, issue 724). SecureSocket
  connects only if the certificate is valid and trusted, also in Flash Player (Adobe's reference of the class).
- Browsers have required TLS 1.2 since 2020, and content in Ruffle connects through their WebSocket.
"""

from typing import NamedTuple

# The clients for which TLS is judged. Flash Player asks for policies inside TLS. AIR's own content needs none, and
# neither do browsers, in which Ruffle runs.
TLS_CLIENTS = ("flash", "air", "browser")
READS_INSIDE_TLS = ("flash",)

# Everything that this machine's OpenSSL has, since the server's choice is to be seen and not to be corrected.
_ALL_SUITES = "ALL:!aNULL:!eNULL:!PSK:!SRP:@SECLEVEL=0"
_CBC_SUITES = "kECDHE+AES:kDHE+AES:kRSA+AES:3DES:!AESGCM:!AESCCM:!aNULL:!PSK:!SRP:@SECLEVEL=0"
ANY = ""  # of versions: as low, or as high, as OpenSSL goes


class Offer(NamedTuple):
    """Versions as ssl.TLSVersion names them, suites as OpenSSL writes them.

    `name` is the server name that is sent, if any, `alpn` the protocols, of which browsers send one for a WebSocket.
    `verify` says whether the handshake ends if the certificate is not
    valid and trusted; its name is judged elsewhere. `ca` is a file with CA certificates beside those of the machine.
    """

    name: str | None = None
    verify: bool = False
    ca: str | None = None
    lowest: str = ANY
    highest: str = ANY
    suites: str = _ALL_SUITES
    alpn: tuple[str, ...] = ()

    def as_flash(self) -> "Offer":
        """Offer what AIR and Flash Player offer."""
        return self._replace(verify=False, highest="TLSv1_2", suites=_CBC_SUITES)

    def of_version(self, version: str) -> "Offer":
        return self._replace(verify=False, lowest=version, highest=version)


# What `--thorough` tries one by one: the name of the experiment, and of the version in ssl.TLSVersion.
VERSIONS = {"TLS 1.0": "TLSv1", "TLS 1.1": "TLSv1_1", "TLS 1.2": "TLSv1_2", "TLS 1.3": "TLSv1_3"}
OLD_VERSIONS = ("TLS 1.0", "TLS 1.1")
