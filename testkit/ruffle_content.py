"""Flash content in Ruffle, in a page of headless Chromium: the movies of `socket_movies`, called from Python."""

import base64
import hashlib
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from testkit import socket_movies

PATIENCE = 30_000  # ms; Ruffle alone takes three seconds to start
MEGABYTE = 1 << 18  # words of 32 bits
PAGE = b"""<!DOCTYPE html>
<title>Ruffle</title>
<script src="/ruffle/ruffle.js"></script>
<script>
const events = [];
let player, connected = false;
function report(event, detail) {
  events.push([event, detail]);
  connected = connected || event == "connect";
}
async function play(url, socketProxy) {
  window.RufflePlayer.config = {
    publicPath: "/ruffle/", polyfills: false, autoplay: "on", unmuteOverlay: "hidden", splashScreen: false,
    preferredRenderer: "canvas", allowScriptAccess: true, socketProxy,
  };
  player = window.RufflePlayer.newest().createPlayer();
  document.body.append(player);
  await player.ruffle().load({url});
}
function call(name, ...values) { player.ruffle().callExternalInterface(name, ...values); }
</script>
"""


def pages() -> dict[str, bytes]:
    """For `ruffle.Site`."""
    return {"/": PAGE, "/avm1.swf": socket_movies.xml_socket(), "/avm2.swf": socket_movies.socket()}


def chromium_flags(certificate: Path, *domains: str) -> list[str]:
    """Flags of a browser that trusts a certificate and finds these domains, with all their hosts, on loopback."""
    key = x509.load_pem_x509_certificate(certificate.read_bytes()).public_key()
    digest = hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).digest()
    rules = ", ".join(f"MAP *.{domain} 127.0.0.1" for domain in domains)
    return [
        f"--ignore-certificate-errors-spki-list={base64.b64encode(digest).decode()}",
        f"--host-resolver-rules={rules}",
    ]


class Content:
    """One movie in a page, which has its socketProxy from here.

    >>> content = Content(page, "http://www.example.com:8000", "avm1", {("games.example.com", 7000): "ws://…"})
    >>> content.call("open", "games.example.com", 7000)
    >>> content.wait("connect")
    """

    def __init__(self, page: Any, site: str, movie: str, proxies: dict[tuple[str, int], str]) -> None:
        """movie: "avm1" or "avm2"."""
        self.page = page
        page.set_default_timeout(PATIENCE)
        page.goto(site)
        entries = [{"host": host, "port": port, "proxyUrl": url} for (host, port), url in proxies.items()]
        page.evaluate("([movie, proxies]) => play(movie, proxies)", [f"/{movie}.swf", entries])
        self.wait("loaded")

    def call(self, method: str, *arguments: object) -> None:
        self.page.evaluate("(values) => call(...values)", [method, *arguments])

    @property
    def events(self) -> list[str]:
        """The names of all events so far."""
        return [event for event, _ in self.page.evaluate("events")]

    def wait(self, event: str) -> object:
        """The detail of the last event of this name, when there is one."""
        has = "(name) => events.some(([event]) => event == name)"
        self.page.wait_for_function(has, arg=event)
        return self.page.evaluate("(name) => events.findLast(([event]) => event == name)[1]", event)

    def send(self, text: str) -> None:
        """Send it on the connection, when there is one."""
        self.page.wait_for_function("() => connected")
        self.page.evaluate("() => { events.length = 0 }")
        self.call("send", text)

    def wait_for_echo(self, text: str) -> None:
        """Until the text that was sent last has come back."""
        # In AVM1 one message is one event; in AVM2 one event is what has arrived.
        returned = "(text) => events.filter(([event]) => event == 'data').map(([_, data]) => data).join('') == text"
        self.page.wait_for_function(returned, arg=text)

    def echo(self, text: str) -> None:
        self.send(text)
        self.wait_for_echo(text)
