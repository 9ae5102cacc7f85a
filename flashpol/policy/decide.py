"""Which client may connect where, and because of which line of the policy.

    >>> from flashpol.policy import decide
    >>> policy = b'''<cross-domain-policy>
    ... <allow-access-from domain="*.example.com" to-ports="1935-1940"/>
    ... </cross-domain-policy>'''
    >>> [flash] = decide(policy, "http://www.example.com/game.swf", 1936)
    >>> flash.allowed, flash.line, flash.column
    (True, 2, 1)
    >>> [lightspark] = decide(policy, "http://www.example.com/game.swf", 1936, clients=["lightspark"])
    >>> lightspark.allowed, lightspark.reason
    (False, 'port 1936 is not in to-ports="1935-1940", and of a range Lightspark grants only the first port')

Clients read more files than `parse` accepts, and each in its own way; so this works on elements, not on a `Policy`.
What is no XML for `reader` allows nobody, whatever the client. A `Decider` is made once for a policy and asked often.

The policy is taken as flashpol serves it: in one piece, with a NUL assured. Off port 843 it is taken as the only
policy there is, and as one that the content asked for: no `site-control` of another file forbids it.
"""

from collections.abc import Iterable

from flashpol.policy.clients import COMPILE
from flashpol.policy.clients.query import Decision, Document, Query
from flashpol.policy.findings import CLIENTS
from flashpol.policy.model import PolicyError, shown
from flashpol.policy.reader import Element

__all__ = ["CLIENTS", "Decider", "decide"]


class Decider:
    """One policy, as each of `clients` understands it; `decide` then costs a few microseconds a client.

    `policy` is the file's bytes, or a root element of `reader`, which has no size and no encoding that a client could
    trip over. Never raises because of them; PolicyError if there is no such client.
    """

    def __init__(self, policy: bytes | Element, clients: Iterable[str] = CLIENTS) -> None:
        self.clients = tuple(dict.fromkeys(clients))
        for client in self.clients:
            if client not in CLIENTS:
                raise PolicyError(f"there is no client {shown(client)}", f"write one of {', '.join(CLIENTS)}")
        self._document = Document.of(policy)
        self._evaluators = [COMPILE[client](self._document) for client in self.clients]

    @property
    def error(self) -> PolicyError | None:
        """Why the bytes are no XML document that any client could read, if so."""
        return self._document.error

    def decide(
        self, content: str, port: int, *, served_from: int | None = None, local: bool = False
    ) -> tuple[Decision, ...]:
        """Say for each client whether `content` may connect to `port`.

        `content` is the URL the content was loaded from, or its domain, which says nothing of HTTPS.
        `served_from` is the port the policy comes from, if not the one that a client asks first: 843 (Silverlight:
        943). `local` says that the server is on the content's own host. Raises PolicyError if the content or a port
        is none.
        """
        query = Query.of(content, port, served_from, local)
        return tuple([evaluate(query) for evaluate in self._evaluators])


def decide(
    policy: bytes | Element,
    content: str,
    port: int,
    *,
    served_from: int | None = None,
    local: bool = False,
    clients: Iterable[str] = ("flash",),
) -> tuple[Decision, ...]:
    """One question to one policy, by default as Flash Player answers it: see `Decider`."""
    return Decider(policy, clients).decide(content, port, served_from=served_from, local=local)
