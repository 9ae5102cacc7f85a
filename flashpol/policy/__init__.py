"""Socket policies: what they mean, how they are written, and what a server sends. Usable on its own.

    >>> from flashpol.policy import allow_policy, compile_reply, merge_files, parse, render
    >>> policy = parse(b'<cross-domain-policy><allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>')
    >>> policy.grants[0].domain.matches("games.example.com"), 1935 in policy.grants[0].ports
    (True, True)
    >>> compile_reply(render(allow_policy(["*.example.com:843,1935"]))).endswith(b"</cross-domain-policy>\\0")
    True

    >>> one, two = render(allow_policy(["*.example.com:80"])), render(allow_policy(["a.example.com:80", "b.net:81"]))
    >>> [str(grant.domain) for grant in parse(merge_files([("one.xml", one), ("two.xml", two)])).grants]
    ['*.example.com', 'b.net']

Pure: no input or output, no clock, the standard library only. `parse`, `render` and `compile_reply` speak Adobe's
dialect (`cross-domain-policy`); those of `flashpol.policy.silverlight`, which is loaded when it is imported by name,
speak Silverlight's (`access-policy`). All errors are `PolicyError`, a ValueError with a place in the text.

    model        the values and the errors      source     bytes -> text
    flash        text <-> Policy                reader     text -> elements, hardened
    silverlight  text <-> AccessPolicy          grammar    elements -> values, what both dialects share
    allow        DOMAIN:PORTS -> Policy         diagnosis  words for XML's errors
    merge        many fragments -> Policy       lint       bytes -> findings
    rules        what lint knows, one table     subject    a file as the rules see it
    findings     what lint says, and where      decide     which client may connect
    clients      how each client reads a policy
"""

from importlib import import_module

# Functions that are called as their modules. Loaded now, for a submodule becomes an attribute of its package when it is
# loaded: later it would take the function's place. So these two import what they need when they are called.
from .decide import CLIENTS, Decider, decide
from .lint import lint

TYPE_CHECKING = False  # not typing's: see flashpol
if TYPE_CHECKING:
    from .allow import allow_grant, allow_policy
    from .clients.query import Decision
    from .findings import Finding, Severity
    from .flash import compile_reply, parse, render
    from .merge import Fragment, MergeError, merge_files, merge_policies
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
    from .decoding import MAX_POLICY_BYTES

__all__ = [
    "CLIENTS",
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
    "lint",
    "merge_files",
    "merge_policies",
    "parse",
    "render",
]


# All else is loaded when it is first asked for: dataclasses, re and expat take 20 ms to load.
_HOMES = {
    name: f".{module}"
    for module, names in {
        "allow": ("allow_grant", "allow_policy"),
        "clients.query": ("Decision",),
        "findings": ("Finding", "Severity"),
        "flash": ("compile_reply", "parse", "render"),
        "merge": ("Fragment", "MergeError", "merge_files", "merge_policies"),
        "model": (
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
        ),
        "decoding": ("MAX_POLICY_BYTES",),
    }.items()
    for name in names
}


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(import_module(_HOMES[name], __name__), name)
    globals()[name] = value  # so that it is asked for once
    return value
