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
    lint       bytes -> findings              rules      what lint knows, one table
    findings   what lint says, and where      subject    a file as the rules see it
"""

from .allow import allow_grant, allow_policy
from .findings import Finding, Severity
from .flash import compile_reply, parse, render
from .lint import lint
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

__all__ = [
    "MAX_POLICY_BYTES",
    "DocumentError",
    "DomainError",
    "DomainPattern",
    "Finding",
    "GrammarError",
    "Grant",
    "LimitError",
    "Location",
    "MetaPolicy",
    "Policy",
    "PolicyError",
    "PortSet",
    "PortsError",
    "Severity",
    "allow_grant",
    "allow_policy",
    "compile_reply",
    "lint",
    "parse",
    "render",
]
