"""Adobe's dialect: the grammar, the canonical form, and the bytes a server sends."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.policy import (
    DomainPattern,
    Grant,
    Location,
    MetaPolicy,
    Policy,
    PolicyError,
    PortSet,
    compile_reply,
    parse,
    render,
)
from testkit.examples import examples

EXAMPLE = Path(__file__).parents[2] / "examples" / "policy.xml"

META_ALL = "<site-control permitted-cross-domain-policies='all'/>"

thorough = examples(200)

labels = st.sampled_from(["a", "b-c", "d_e", "0", "xn--bcher-kva", "z" * 63])
hosts = st.lists(labels, max_size=3).map(lambda chosen: ".".join([*chosen, "example"]))
domains = st.one_of(
    st.just(DomainPattern("", wildcard=True)),
    st.builds(DomainPattern, hosts, wildcard=st.booleans()),
    st.ip_addresses(v=4).map(str).map(DomainPattern),
)
ports = st.integers(1, 65535)
port_sets = st.one_of(
    st.just(PortSet(any=True)),
    st.lists(st.tuples(ports, ports).map(lambda pair: (min(pair), max(pair))), min_size=1, max_size=5).map(
        lambda ranges: PortSet(tuple(ranges))
    ),
    st.sets(st.integers(1, 50), min_size=1).map(lambda chosen: PortSet(tuple((port, port) for port in chosen))),
)
policies = st.builds(
    Policy,
    st.lists(st.builds(Grant, domains, port_sets, st.booleans()), max_size=5).map(tuple),
    st.none() | st.sampled_from(MetaPolicy),
)


# What policies are made of, and what they must not be made of, to be put together at random.
WORDS = [
    *("<cross-domain-policy>", "</cross-domain-policy>", "<allow-access-from", "<site-control", "/>", ">", "<"),
    *(" domain=", " to-ports=", " secure=", " permitted-cross-domain-policies=", "'", '"', "=", "\n", " "),
    *("'*'", "'80-90'", "'*.a.b'", "'all'", "'none'", "'true'", "&", ";", "&amp;", "&x;", "&#49;", "x"),
    *("<!--", "-->", "<?xml", " version='1.0'", " encoding='utf-16'", "?>", "<![CDATA[", "]]>"),
    *("<!DOCTYPE a", "[", "]", "<!ENTITY x 'y'>", "\u201c", "\0", "\ufeff", "\u00a0"),
]


def grant(domain: str, to_ports: str, *, secure: bool = False) -> Grant:
    return Grant(DomainPattern.parse(domain), PortSet.parse(to_ports), secure)


class TestParse:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ("", Policy()),
            ("<!-- nothing -->\r\n", Policy()),
            ('<allow-access-from domain="*" to-ports="*"/>', Policy((grant("*", "*"),))),
            (
                "<allow-access-from to-ports='80' domain='a.example'></allow-access-from>",
                Policy((grant("a.example", "80"),)),
            ),
            (
                '<allow-access-from domain="a.example" to-ports="80" secure="true"/>',
                Policy((grant("a.example", "80", secure=True),)),
            ),
            (
                '<allow-access-from domain="a.example" to-ports="80" secure="false"/>',
                Policy((grant("a.example", "80"),)),
            ),
            ('<site-control permitted-cross-domain-policies="none"/>', Policy(meta=MetaPolicy.NONE)),
            ('<site-control permitted-cross-domain-policies="master-only"/>', Policy(meta=MetaPolicy.MASTER_ONLY)),
            (
                f"<allow-access-from domain='*' to-ports='1'/>{META_ALL}",  # the wrong order, often seen
                Policy((grant("*", "1"),), MetaPolicy.ALL),
            ),
            (
                "<allow-access-from domain='b.example' to-ports='2, 1'/>"
                "<allow-access-from domain='a.example' to-ports='1'/>",
                Policy((grant("b.example", "1-2"), grant("a.example", "1"))),
            ),
        ],
    )
    def test_parse_accepts_the_grammar(self, body: str, expected: Policy) -> None:
        assert parse(f"<cross-domain-policy>{body}</cross-domain-policy>".encode()) == expected

    @pytest.mark.parametrize(
        "data",
        [
            b"<cross-domain-policy/>",
            b"<cross-domain-policy/>\0",
            b" \n<cross-domain-policy/>\r\n \t",
            b"<cross-domain-policy/>\n\0",
            b'\xef\xbb\xbf<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n<cross-domain-policy/>',
            b'\n<?xml version="1.0"?><cross-domain-policy/>',
            '<?xml version="1.0" encoding="UTF-16"?><cross-domain-policy/>'.encode("utf-16"),
            b'<!DOCTYPE cross-domain-policy SYSTEM "http://www.macromedia.com/xml/dtds/cross-domain-policy.dtd">'
            b"<cross-domain-policy/>",
            b'<cross-domain-policy xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
            b' xsi:noNamespaceSchemaLocation="http://www.adobe.com/xml/schemas/PolicyFileSocket.xsd"/>',
        ],
    )
    def test_parse_accepts_wrappings_around_the_xml(self, data: bytes) -> None:
        assert parse(data) == Policy()

    def test_parse_grants_have_their_places(self) -> None:
        policy = parse(
            b"<cross-domain-policy>\n"
            b'  <site-control permitted-cross-domain-policies="all"/>\n'
            b'  <allow-access-from domain="*" to-ports="1"/><allow-access-from domain="*" to-ports="2"/>\n'
            b"</cross-domain-policy>"
        )
        assert policy.meta_location == Location(2, 3)
        assert [each.location for each in policy.grants] == [Location(3, 3), Location(3, 47)]


class TestRender:
    def test_render_is_canonical(self) -> None:
        grants = grant("*.Example.com", "8000-8100, 80"), grant("a.example", "*", secure=True)
        policy = Policy(grants, MetaPolicy.MASTER_ONLY)
        assert render(policy) == (
            b'<?xml version="1.0"?>\n'
            b"<cross-domain-policy>\n"
            b'<site-control permitted-cross-domain-policies="master-only"/>\n'
            b'<allow-access-from domain="*.example.com" to-ports="80,8000-8100"/>\n'
            b'<allow-access-from domain="a.example" to-ports="*" secure="true"/>\n'
            b"</cross-domain-policy>"
        )

    def test_render_empty_policy(self) -> None:
        assert render(Policy()) == b'<?xml version="1.0"?>\n<cross-domain-policy/>'

    def test_render_writes_short_runs_singly(self) -> None:
        assert b'to-ports="80,81,82"' in render(Policy((grant("*", "80-82"),)))
        assert b",16" in render(Policy((grant("*", "1-16"),)))
        assert b'to-ports="1-17"' in render(Policy((grant("*", "1-17"),)))

    def test_render_at_4096_bytes_writes_ranges(self) -> None:
        def size(grants: int) -> tuple[int, bytes]:
            data = render(Policy((grant("*", "10001-10016"),) * grants))
            return len(data) + 1, data

        fits, data = size(28)
        assert fits < 4096
        assert b"10001,10002," in data
        compact, data = size(29)
        assert compact < 4096
        assert b"10001-10016" in data

    def test_render_leaves_room_for_a_newline_and_nul(self) -> None:
        """A newline and the NUL still fit into the reply: Lightspark may hang at 4,096 bytes."""
        several = (grant("*", "10001-10016"),) * 28
        sizes = {len(render(Policy((*several, grant(f"{'b' * 60}.{'a' * pad}", "80"))))) for pad in range(1, 60)}
        assert max(sizes) == 4093

    @thorough
    @given(policies)
    def test_render_then_parse_is_identity(self, policy: Policy) -> None:
        data = render(policy)
        assert parse(data) == policy
        assert render(parse(data)) == data
        assert data.isascii()
        assert b"\0" not in data
        assert data.endswith(b">")
        assert compile_reply(data) == data + b"\0"
        assert parse(data + b"\0") == policy


class TestCompileReply:
    @pytest.mark.parametrize(
        "data",
        [
            b"<cross-domain-policy/>",
            b"\n<!-- as written -->\r\n<cross-domain-policy ></cross-domain-policy>\n",
            b"\xef\xbb\xbf<cross-domain-policy/>",
            b'<?xml version="1.0" encoding="windows-1252"?><!-- \x93 --><cross-domain-policy/>',
        ],
    )
    def test_compile_reply_keeps_the_bytes_and_ends_in_one_nul(self, data: bytes) -> None:
        assert compile_reply(data) == data + b"\0"
        for rest in (b"\0", b"\0\0", b"\0\r\n", b"\0</html>"):
            assert compile_reply(data + rest) == data + b"\0"

    def test_compile_reply_of_an_invalid_policy_raises(self) -> None:
        with pytest.raises(PolicyError, match="the policy is empty"):
            compile_reply(b"")


def test_parse_published_example() -> None:
    data = EXAMPLE.read_bytes()
    assert len(data) < 1024
    assert data.isascii()
    assert compile_reply(data) == data + b"\0"
    assert parse(data) == Policy(
        (grant("*.example.com", "1935,8000,8001"), grant("games.example.net", "9339")), MetaPolicy.MASTER_ONLY
    )
