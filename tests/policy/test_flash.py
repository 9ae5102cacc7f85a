"""Adobe's dialect: the grammar, the canonical form, and the bytes a server sends."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashpol.policy import (
    DocumentError,
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

EXAMPLE = Path(__file__).parents[2] / "examples" / "policy.xml"

META_ALL = "<site-control permitted-cross-domain-policies='all'/>"

thorough = settings(max_examples=200, print_blob=True, deadline=None)

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
    def test_grammar(self, body: str, expected: Policy) -> None:
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
    def test_wrappings(self, data: bytes) -> None:
        assert parse(data) == Policy()

    def test_places(self) -> None:
        policy = parse(
            b"<cross-domain-policy>\n"
            b'  <site-control permitted-cross-domain-policies="all"/>\n'
            b'  <allow-access-from domain="*" to-ports="1"/><allow-access-from domain="*" to-ports="2"/>\n'
            b"</cross-domain-policy>"
        )
        assert policy.meta_location == Location(2, 3)
        assert [each.location for each in policy.grants] == [Location(3, 3), Location(3, 47)]

    @pytest.mark.parametrize(
        ("text", "line", "column", "fragment"),
        [
            ("<access-policy/>", 1, 1, "this is a Silverlight policy; serve it with the silverlight dialect"),
            ("<policy-file-request/>", 1, 1, "this is a client's request, not a policy"),
            ('<?xml version="1.0"?>\n<html><body/></html>', 2, 1, "this is an HTML page"),
            ("<allow-access-from/>\n<allow-access-from/>", 1, 1, "the root element is missing"),
            ("<!-- x --><site-control/>\n<allow-access-from/>", 1, 11, "the root element is missing"),
            ("<Cross-Domain-Policy/>", 1, 1, "the root element is <Cross-Domain-Policy>; write <cross-domain-policy>"),
            ('<cross-domain-policy version="1.0"/>', 1, 22, 'cross-domain-policy has no attribute "version"'),
            ('<cross-domain-policy xmlns="x"/>', 1, 22, 'cross-domain-policy has no attribute "xmlns"'),
        ],
    )
    def test_wrong_root(self, text: str, line: int, column: int, fragment: str) -> None:
        self.refused(text, line, column, fragment)

    @pytest.mark.parametrize(
        ("body", "line", "column", "fragment"),
        [
            ("<foo/>", 2, 1, "<foo> is not known in socket policies"),
            ("<Allow-Access-From/>", 2, 1, "<Allow-Access-From> is not known"),
            ("<cross-domain-policy/>", 2, 1, "<cross-domain-policy> stands inside another"),
            ("<allow-http-request-headers-from domain='*' headers='*'/>", 2, 1, "is for HTTP policies only"),
            ("<allow-access-from-identity/>", 2, 1, "<allow-access-from-identity> is not for sockets"),
            ("<allow-access-from domain='*'/>", 2, 1, 'allow-access-from has no to-ports; write to-ports="'),
            ("<allow-access-from to-ports='*'/>", 2, 1, 'allow-access-from has no domain; write domain="'),
            ("<allow-access-from domain='*' to-port='*'/>", 2, 31, 'no attribute "to-port"; remove it; known are'),
            ("<allow-access-from domain='*' to-ports='*' headers='*'/>", 2, 44, 'no attribute "headers"'),
            ("<allow-access-from domain='*.' to-ports='*'/>", 2, 28, 'the domain "*." has a wildcard'),
            ("<allow-access-from\n\tdomain='www.q*.com'\n\tto-ports='*'/>", 3, 10, 'the domain "www.q*.com" has'),
            ("<allow-access-from domain='&lt;' to-ports='*'/>", 2, 28, 'the domain "<" is not a host name'),
            ("<allow-access-from domain='*'\n\tto-ports='80,99999'/>", 3, 12, 'there is no port "99999"'),
            ("<allow-access-from domain='*' to-ports='90-80'/>", 2, 41, "the range 90-80 is reversed"),
            ("<allow-access-from domain='*' to-ports=''/>", 2, 41, "the port list is empty"),
            ("<allow-access-from domain='*' to-ports='*' secure='yes'/>", 2, 52, 'secure is "yes"; write "true"'),
            ("<allow-access-from domain='*' to-ports='*' secure='True'/>", 2, 52, 'secure is "True"'),
            ("<allow-access-from domain='*' to-ports='*'><site-control/></allow-access-from>", 2, 44, "stands inside"),
            ("<site-control/>", 2, 1, "site-control has no permitted-cross-domain-policies"),
            ("<site-control permitted-cross-domain-policies='by-content-type'/>", 2, 48, "is for HTTP policies only"),
            ("<site-control permitted-cross-domain-policies='by-ftp-filename'/>", 2, 48, "is for FTP policies only"),
            ("<site-control permitted-cross-domain-policies='All'/>", 2, 48, '"All" is not a meta-policy; write'),
            ("<site-control permitted-cross-domain-policies='all' x=''/>", 2, 53, 'site-control has no attribute "x"'),
            (f"{META_ALL}\n{META_ALL}", 3, 1, "a second site-control, after the one at line 2, column 1; keep one"),
        ],
    )
    def test_wrong_content(self, body: str, line: int, column: int, fragment: str) -> None:
        self.refused(f"<cross-domain-policy>\n{body}</cross-domain-policy>", line, column, fragment)

    def refused(self, text: str, line: int, column: int, fragment: str) -> None:
        with pytest.raises(PolicyError) as caught:
            parse(text.encode())
        assert fragment in str(caught.value)
        assert (caught.value.line, caught.value.column) == (line, column)

    @thorough
    @given(st.binary() | st.text().map(str.encode))
    def test_any_bytes(self, data: bytes) -> None:
        policy_or_error(data)

    @thorough
    @given(
        st.lists(
            st.sampled_from(WORDS),
            max_size=25,
        ),
        st.sampled_from(["", " "]),
        st.sampled_from(["utf-8", "utf-16", "utf-16-be"]),
    )
    def test_any_words(self, words: list[str], between: str, encoding: str) -> None:
        policy_or_error(between.join(words).encode(encoding))

    @thorough
    @given(policies, st.data())
    def test_any_damage(self, policy: Policy, data: st.DataObject) -> None:
        file = render(policy)
        at = data.draw(st.integers(0, len(file)))
        policy_or_error(file[:at] + data.draw(st.binary(max_size=3)) + file[at + data.draw(st.integers(0, 3)) :])


def policy_or_error(data: bytes) -> None:
    """Parse: a policy or a PolicyError of one line with a place; what parses is served."""
    try:
        policy, error = parse(data), None
    except PolicyError as refusal:
        policy, error = None, refusal
    if policy:
        assert parse(render(policy)) == policy
    if error:
        assert error.location
        assert str(error).isprintable()


class TestRender:
    def test_canonical(self) -> None:
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

    def test_empty(self) -> None:
        assert render(Policy()) == b'<?xml version="1.0"?>\n<cross-domain-policy/>'

    def test_short_runs_are_written_singly(self) -> None:
        assert b'to-ports="80,81,82"' in render(Policy((grant("*", "80-82"),)))
        assert b",16" in render(Policy((grant("*", "1-16"),)))
        assert b'to-ports="1-17"' in render(Policy((grant("*", "1-17"),)))

    def test_unless_the_reply_would_grow_to_4096_bytes(self) -> None:
        def size(grants: int) -> tuple[int, bytes]:
            data = render(Policy((grant("*", "10001-10016"),) * grants))
            return len(data) + 1, data

        fits, data = size(28)
        assert fits < 4096
        assert b"10001,10002," in data
        compact, data = size(29)
        assert compact < 4096
        assert b"10001-10016" in data

    def test_a_file_may_end_in_a_newline(self) -> None:
        """A byte more must not make Lightspark wait for ever: it does at 4,096, the NUL included."""
        several = (grant("*", "10001-10016"),) * 28
        sizes = {len(render(Policy((*several, grant(f"{'b' * 60}.{'a' * pad}", "80"))))) for pad in range(1, 60)}
        assert max(sizes) == 4093

    @thorough
    @given(policies)
    def test_identity(self, policy: Policy) -> None:
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
    def test_byte_for_byte_and_one_nul(self, data: bytes) -> None:
        assert compile_reply(data) == data + b"\0"
        assert compile_reply(data + b"\0") == data + b"\0"

    def test_invalid(self) -> None:
        with pytest.raises(PolicyError, match="the policy is empty"):
            compile_reply(b"")

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
    def test_utf16_can_be_read_but_not_served(self, encoding: str) -> None:
        data = "<cross-domain-policy/>".encode(encoding)
        assert parse(data) == Policy()
        with pytest.raises(DocumentError, match="the policy is UTF-16"):
            compile_reply(data)


def test_the_example() -> None:
    data = EXAMPLE.read_bytes()
    assert len(data) < 1024
    assert data.isascii()
    assert compile_reply(data) == data + b"\0"
    assert parse(data) == Policy(
        (grant("*.example.com", "1935,8000,8001"), grant("games.example.net", "9339")), MetaPolicy.MASTER_ONLY
    )
