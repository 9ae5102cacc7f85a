"""Grants written as `DOMAIN:PORTS` on a command line, such as `*.example.com:1935,8000-8100`.

The last colon separates the two: a domain contains none (see `DomainPattern`: neither ports nor IPv6).
"""

from collections.abc import Iterable

from flashpol.policy.model import DomainPattern, GrammarError, Grant, Policy, PolicyError, PortSet, shown


def allow_grant(text: str) -> Grant:
    """Read one `DOMAIN:PORTS`, both as in a policy file. Raises PolicyError, without line and column."""
    domain, colon, ports = text.rpartition(":")
    if not colon or ports.startswith("//"):  # the colon of http://
        raise GrammarError(f"{shown(text)} names no ports", 'write DOMAIN:PORTS, as in "*.example.com:1935"')
    try:
        return Grant(DomainPattern.parse(domain), PortSet.parse(ports))
    except PolicyError as error:
        # The error names the argument: there may be several.
        raise type(error)(f"in {shown(text)}: {error.wrong}", error.instead) from None


def allow_policy(texts: Iterable[str]) -> Policy:
    """Read several `DOMAIN:PORTS` into a policy, in the given order, without repetitions. Raises PolicyError."""
    return Policy(tuple(dict.fromkeys(map(allow_grant, texts))))
