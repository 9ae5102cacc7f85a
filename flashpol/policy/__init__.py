"""Socket policies: their meaning, their grammar, and the reply that a server sends. Usable as a library of its own.

    >>> from flashpol.policy import allow_policy, compile_reply, merge_files, parse, render
    >>> policy = parse(b'<cross-domain-policy><allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>')
    >>> policy.grants[0].domain.matches("games.example.com"), 1935 in policy.grants[0].ports
    (True, True)
    >>> compile_reply(render(allow_policy(["*.example.com:843,1935"]))).endswith(b"</cross-domain-policy>\\0")
    True

    >>> one, two = render(allow_policy(["*.example.com:80"])), render(allow_policy(["a.example.com:80", "b.net:81"]))
    >>> [str(grant.domain) for grant in parse(merge_files([("one.xml", one), ("two.xml", two)])).grants]
    ['*.example.com', 'b.net']

The package is pure: it does no input or output, reads no clock, and needs only the standard library. `parse`, `render`
and `compile_reply` read and write Adobe's dialect (`cross-domain-policy`), and the functions of the same names in
`flashpol.policy.silverlight` Silverlight's (`access-policy`). All errors are `PolicyError`, a ValueError with a place.

    model         values and errors                decoding    bytes -> text
    flash         text <-> Policy                  reader      text -> elements, hardened
    silverlight   text <-> AccessPolicy            xml_errors  the cause of malformed XML
    allow         DOMAIN:PORTS -> Policy           grammar     elements -> values, for both dialects
    merge         many fragments -> Policy         lint        bytes -> findings
    decide        which client may connect         rules       the rules of lint
    clients       how each client reads a policy   findings    a finding and its place
"""

from flashpol.policy.allow import allow_grant, allow_policy
from flashpol.policy.clients.query import Decision
from flashpol.policy.decide import CLIENTS, DECIDE_CLIENTS, Decider, decide
from flashpol.policy.decoding import MAX_POLICY_BYTES
from flashpol.policy.findings import Finding, Severity
from flashpol.policy.flash import compile_reply, parse, render
from flashpol.policy.lint import explained, lint
from flashpol.policy.merge import Fragment, MergeError, merge_files, merge_policies
from flashpol.policy.model import (
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

__all__ = [
    "CLIENTS",
    "DECIDE_CLIENTS",
    "MAX_POLICY_BYTES",
    "Decider",
    "Decision",
    "DocumentError",
    "DomainError",
    "DomainPattern",
    "Finding",
    "Fragment",
    "GrammarError",
    "Grant",
    "LimitError",
    "Location",
    "MergeError",
    "MetaPolicy",
    "Policy",
    "PolicyError",
    "PortSet",
    "PortsError",
    "Severity",
    "allow_grant",
    "allow_policy",
    "compile_reply",
    "decide",
    "explained",
    "lint",
    "merge_files",
    "merge_policies",
    "parse",
    "render",
]
