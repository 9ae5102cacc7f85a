"""Grants from the command line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.policy import (
    DomainError,
    DomainPattern,
    GrammarError,
    Grant,
    Policy,
    PolicyError,
    PortsError,
    PortSet,
    allow_grant,
    allow_policy,
    parse,
    render,
)
from testkit.examples import examples


@pytest.mark.parametrize(
    ("text", "domain", "ports"),
    [
        ("*:*", "*", "*"),
        ("*.example.com:1935,8000-8100", "*.example.com", "1935,8000-8100"),
        ("games.example.com:843", "games.example.com", "843"),
        ("192.0.2.1:1-65535", "192.0.2.1", "1-65535"),
        ("Example.com: 80, 81", "example.com", "80-81"),
    ],
)
def test_allow_grant_reads_domain_and_ports(text: str, domain: str, ports: str) -> None:
    assert allow_grant(text) == Grant(DomainPattern.parse(domain), PortSet.parse(ports))


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("", GrammarError, '"" names no ports; write DOMAIN:PORTS, as in "*.example.com:1935"'),
        ("*", GrammarError, '"*" names no ports; '),
        ("http://a.com", GrammarError, '"http://a.com" names no ports; '),
        ("http://a.com:80", DomainError, 'in "http://a.com:80": the domain "http://a.com" is a URL; '),
        (":80", DomainError, 'in ":80": the domain is empty; '),
        ("a.com:", PortsError, 'in "a.com:": the port list is empty; '),
        ("a.com:0", PortsError, 'in "a.com:0": there is no port "0"; '),
        ("a.com:80:81", DomainError, 'in "a.com:80:81": the domain "a.com:80" contains a port; '),
        ("[::1]:*", DomainError, 'in "[::1]:*": the domain "[::1]" is an IPv6 address; '),
        ("::1:80", DomainError, 'in "::1:80": the domain "::1" is an IPv6 address; '),
        ("[::1]", DomainError, 'in "[::1]": the domain "[:" is an IPv6 address; '),
    ],
)
def test_allow_grant_refuses_and_names_the_argument(text: str, kind: type[PolicyError], message: str) -> None:
    with pytest.raises(kind) as caught:
        allow_grant(text)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert caught.value.line is None


def test_allow_policy_keeps_order_without_repetitions() -> None:
    policy = allow_policy(["b.example:2", "a.example:1", "B.example:2"])
    assert policy == Policy((allow_grant("b.example:2"), allow_grant("a.example:1")))
    assert parse(render(policy)) == policy


def test_allow_policy_without_grants_allows_nothing() -> None:
    assert allow_policy([]) == Policy()


@examples(200)
@given(st.text() | st.text("*.:,-/[]019a "))
def test_allow_grant_any_text_is_a_grant_or_a_policy_error(text: str) -> None:
    try:
        grant, message = allow_grant(text), ""
    except PolicyError as error:
        grant, message = None, str(error)
    assert message.isprintable()
    if grant:
        assert allow_grant(f"{grant.domain}:{grant.ports}") == grant
