"""Decides whether content may connect to a port, by which client, and because of which line of the policy.

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

Clients read more files than `parse` accepts, each in its own way, so decisions use elements, not a `Policy`. A file
that is not well-formed XML is denied by every client. A `Decider` is made once for a policy and asked often.

The policy counts as flashpol serves it: in one piece, with a NUL at its end. Off port 843 it counts as the only policy,
which the content asked for: no `site-control` of another file forbids it.
"""

from collections.abc import Iterable
from dataclasses import replace

from flashpol.policy.clients import COMPILE
from flashpol.policy.clients.query import Decision, Document, Evaluator, Query, allowed, denied
from flashpol.policy.clients.sandboxes import AIR, NO_DOMAIN, REMOTE, RULES, SANDBOXES
from flashpol.policy.findings import CLIENTS
from flashpol.policy.model import PolicyError, shown
from flashpol.policy.reader import Element

__all__ = ["CLIENTS", "DECIDE_CLIENTS", "Decider", "decide"]

# The clients that policies decide about: those that read them, and Ruffle, for which flashpol does.
DECIDE_CLIENTS = (*CLIENTS, "ruffle")


class Decider:
    """One policy, as each of `clients` understands it; a decision costs a few microseconds for each client.

    `policy` is the bytes of a file, or a root element of `reader`, which has no size and no encoding. Never raises
    because of the policy; raises PolicyError for an unknown client.
    """

    def __init__(self, policy: bytes | Element, clients: Iterable[str] = DECIDE_CLIENTS) -> None:
        self.clients = tuple(dict.fromkeys(clients))
        for client in self.clients:
            if client not in DECIDE_CLIENTS:
                raise PolicyError(f"there is no client {shown(client)}", f"write one of {', '.join(DECIDE_CLIENTS)}")
        self._document = Document.of(policy)
        self._evaluators = [(client, COMPILE[client](self._document)) for client in self.clients]

    @property
    def error(self) -> PolicyError | None:
        """The error if the bytes are not a document that any client can read, otherwise None."""
        return self._document.error

    def decide(
        self,
        content: str,
        port: int,
        *,
        served_from: int | None = None,
        local: bool = False,
        sandbox: str | None = None,
    ) -> tuple[Decision, ...]:
        """Return for each client whether `content` may connect to `port`.

        `content` is the URL that the content was loaded from, or its domain, which does not say whether HTTPS was used.
        For Ruffle it is that of the page.
        `served_from` is the port that serves the policy, None for the one that a client asks first: 843 (Silverlight:
        943). `local` means that the server is on the content's own host. `sandbox` is one of
        `clients.sandboxes.SANDBOXES` for content that is not from the web; None: the one that the URL implies.
        Raises PolicyError if the content, a port or the sandbox is invalid.
        """
        query = Query.of(content, port, served_from, local, sandbox)
        return tuple([_decision(client, evaluate, query) for client, evaluate in self._evaluators])


def _decision(client: str, evaluate: Evaluator, query: Query) -> Decision:
    sandbox = query.sandbox or query.content.sandbox
    rule = RULES[client].get(sandbox)
    if rule is None:
        if query.sandbox not in (None, REMOTE) or sandbox == AIR:
            return denied(client, f"{client} runs no {sandbox} content ({SANDBOXES[sandbox]})")
        return evaluate(query)
    if rule.allowed is None or (rule.local_only and not query.local):
        decision = evaluate(query)
        return replace(decision, reason=f"{decision.reason} ({rule.reason if rule.allowed is None else NO_DOMAIN})")
    if rule.allowed:
        return allowed(client, rule.reason, None)
    return denied(client, rule.reason, None, rule.words)


def decide(
    policy: bytes | Element,
    content: str,
    port: int,
    *,
    served_from: int | None = None,
    local: bool = False,
    sandbox: str | None = None,
    clients: Iterable[str] = ("flash",),
) -> tuple[Decision, ...]:
    """Ask one policy once, by default as Flash Player decides: see `Decider`."""
    return Decider(policy, clients).decide(content, port, served_from=served_from, local=local, sandbox=sandbox)
