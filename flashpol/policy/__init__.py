"""Socket policies: what they mean, how they are written, and what a server sends. Usable on its own.

    >>> from flashpol.policy import allow_policy, compile_reply, parse, render
    >>> policy = parse(b'<cross-domain-policy><allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>')
    >>> policy.grants[0].domain.matches("games.example.com"), 1935 in policy.grants[0].ports
    (True, True)
    >>> compile_reply(render(allow_policy(["*.example.com:843,1935"]))).endswith(b"</cross-domain-policy>\\0")
    True

Pure: no input or output, no clock, the standard library only. `parse`, `render` and `compile_reply` speak Adobe's
dialect (`cross-domain-policy`). All errors are `PolicyError`, a ValueError with a place in the text.

    model      the values and the errors      source     bytes -> text
    flash      text <-> Policy                reader     text -> elements, hardened
    allow      DOMAIN:PORTS -> Policy         diagnosis  words for XML's errors
    decide     which client may connect       clients    how each client reads a policy
"""

from typing import TYPE_CHECKING

from .allow import allow_grant, allow_policy
from .decide import CLIENTS, Decider, decide
from .flash import compile_reply, parse, render
from .model import (
    DocumentError,
    DomainError,
    DomainPattern,
    GrammarError,
    Grant,
    LimitError,
    Location,
    MetaPolicy,
    Policy,
    PolicyError,
    PortsError,
    PortSet,
)
from .source import MAX_POLICY_BYTES

if TYPE_CHECKING:
    from .clients.question import Decision

__all__ = [
    "CLIENTS",
    "MAX_POLICY_BYTES",
    "Decider",
    "Decision",
    "DocumentError",
    "DomainError",
    "DomainPattern",
    "GrammarError",
    "Grant",
    "LimitError",
    "Location",
    "MetaPolicy",
    "Policy",
    "PolicyError",
    "PortSet",
    "PortsError",
    "allow_grant",
    "allow_policy",
    "compile_reply",
    "decide",
    "parse",
    "render",
]


def __getattr__(name: str) -> object:
    """`Decision` is loaded when it is first asked for, with the clients: see `Decider`."""
    if name == "Decision":
        from .clients.question import Decision

        return Decision
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
