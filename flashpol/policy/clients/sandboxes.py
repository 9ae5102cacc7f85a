"""Content that does not come from a web site: what each client lets it do, whatever the policy says.

A client puts content into a sandbox by where it comes from and how it was published. Some sandboxes need no policy,
some may not use sockets at all, and in some the content counts as content without a domain, which only `*` matches.

Sources, beside those in `clients`:

    AS3R   Adobe, ActionScript 3.0 reference, `flash.net.Socket` and `XMLSocket`: local-with-filesystem content may not
           use sockets; the AIR application sandbox is exempt from socket policies
    P3     Adobe, Programming ActionScript 3.0 (Flex 2), "Local sandboxes": local-with-networking content gets
           permissions only from policies for "*"; local-trusted content may load from every domain
    FTM    Adobe, Building and Deploying Flex 3 Applications, "Browser security": a program that runs the player without
           local security puts local content into the local-trusted sandbox; a projector is taken for one
    S4     Microsoft, network class library team, "Silverlight 4 Socket Policy Changes": applications with elevated
           trust connect to every port of every host without a policy
    RF     ruffle-rs/ruffle, `desktop/src/cli.rs` (`--tcp-connections`, `--socket-allow`), and the setting `socketProxy`
           of its web player
    LS     `SecurityManager::evaluateSocketConnection`: local-trusted content needs no policy for 127.0.0.1 and
           localhost; `Socket.connect` refuses local-with-filesystem content, the default for files
    UM     Unity manual, "Security Sandbox of the Webplayer": it applies only to the web player
"""

from dataclasses import dataclass

REMOTE = "remote"
FILESYSTEM = "local-with-filesystem"
NETWORKING = "local-with-networking"
TRUSTED = "local-trusted"
PROJECTOR = "projector"
AIR = "air-application"
RUFFLE_DESKTOP = "ruffle-desktop"
RUFFLE_WEB = "ruffle-web"
ELEVATED = "elevated-trust"
STANDALONE = "standalone"

SANDBOXES = {
    REMOTE: "loaded from a web site",
    FILESYSTEM: "a file, published for the file system, as files are by default",
    NETWORKING: "a file, published for the network",
    TRUSTED: "a file in a trusted folder",
    PROJECTOR: "inside a Flash projector",
    AIR: "installed with an AIR application, as app:/ URLs are",
    RUFFLE_DESKTOP: "in Ruffle's desktop player",
    RUFFLE_WEB: "in Ruffle on a web page",
    ELEVATED: "a Silverlight application with elevated trust, out of the browser",
    STANDALONE: "a Unity program that was built for the desktop",
}
# Sandboxes that are only for files.
LOCAL = (FILESYSTEM, NETWORKING, TRUSTED)

NO_POLICY = "no policy needed"
BLOCKED = "blocked whatever the policy says"
NO_DOMAIN = 'as content without a domain, which only domain="*" matches'


@dataclass(frozen=True, slots=True)
class Rule:
    """What a client lets content of a sandbox do. `allowed` is None if the policy decides, and `local_only` if the
    rule holds only for servers on the content's own host, and the policy decides otherwise."""

    allowed: bool | None
    reason: str
    words: str = ""
    local_only: bool = False


_FLASH = {
    FILESYSTEM: Rule(
        False,
        f"{BLOCKED}: local-with-filesystem content may not use sockets; publish it for the network or trust its folder",
        "#2010 local-with-filesystem SWF files are not permitted to use sockets",
    ),
    NETWORKING: Rule(None, NO_DOMAIN),
    TRUSTED: Rule(True, f"{NO_POLICY}: local-trusted content may connect to every host"),
    PROJECTOR: Rule(True, f"{NO_POLICY}: the content of a projector is local-trusted"),
    AIR: Rule(True, f"{NO_POLICY}: the AIR application sandbox is exempt from socket policies"),
    RUFFLE_DESKTOP: Rule(
        True, f"{NO_POLICY}: Ruffle asks for none; its user allows the connection (--tcp-connections, --socket-allow)"
    ),
    RUFFLE_WEB: Rule(
        True,
        f"{NO_POLICY}: Ruffle asks for none, and connects only through a WebSocket proxy of its socketProxy setting;"
        " flashpol as that proxy asks its policy (client ruffle)",
    ),
}
_LIGHTSPARK = {
    FILESYSTEM: Rule(
        False,
        f"{BLOCKED}: local-with-filesystem content may not use sockets; see Lightspark's option --security-sandbox",
        "SecurityError: connect to network",
    ),
    NETWORKING: Rule(None, NO_DOMAIN),
    TRUSTED: Rule(True, f"{NO_POLICY}: local-trusted content may connect to 127.0.0.1 and localhost", local_only=True),
}
_UNITY = {STANDALONE: Rule(True, f"{NO_POLICY}: the security sandbox applies only to the Unity Web Player")}
_SILVERLIGHT = {
    ELEVATED: Rule(True, f"{NO_POLICY}: Silverlight 4 and later connect to every port for elevated trust"),
}
# Browsers know nothing of Flash's sandboxes: every file has the Origin null.
_FILE = Rule(None, 'as a page without an Origin of its own, which only domain="*" matches')
_RUFFLE = {
    FILESYSTEM: _FILE,
    NETWORKING: _FILE,
    TRUSTED: _FILE,
    RUFFLE_DESKTOP: Rule(
        True, f"{NO_POLICY}: Ruffle's desktop player connects without a WebSocket, where its user allows it"
    ),
    RUFFLE_WEB: Rule(None, "by the Origin of the page"),
}
RULES = {
    "flash": _FLASH,
    "lightspark": _LIGHTSPARK,
    "unity": _UNITY,
    "silverlight": _SILVERLIGHT,
    "ruffle": _RUFFLE,
}


def knows(client: str, sandbox: str) -> bool:
    """Return whether the client has content in this sandbox."""
    return sandbox == REMOTE or sandbox in RULES[client]
