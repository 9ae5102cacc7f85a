"""Silverlight's dialect: the grammar, the canonical form, and the bytes a server sends."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashpol.policy import (
    DocumentError,
    DomainError,
    DomainPattern,
    GrammarError,
    Location,
    PolicyError,
    PortsError,
    PortSet,
    flash,
)
from flashpol.policy.silverlight import (
    AccessPolicy,
    AccessRule,
    Origin,
    SocketResource,
    compile_reply,
    parse,
    render,
)

thorough = settings(max_examples=200)

FROM = '<allow-from><domain uri="*"/></allow-from>'
TO = '<grant-to><socket-resource port="4502-4534" protocol="tcp"/></grant-to>'
RULE = f"<policy>{FROM}{TO}</policy>"

hosts = st.lists(st.sampled_from(["a", "b-c", "xn--bcher-kva"]), max_size=2).map(lambda ls: ".".join([*ls, "example"]))
domains = st.one_of(st.builds(DomainPattern, hosts, wildcard=st.booleans()), st.just(DomainPattern("192.0.2.1")))
origins = st.one_of(
    st.just(Origin()),
    st.just(Origin("file")),
    st.sampled_from(["http", "https"]).map(Origin),
    st.builds(
        Origin,
        st.sampled_from(["http", "https"]),
        domains,
        st.none() | st.sampled_from([80, 443]) | st.integers(1, 65535),
    ),
)
ports = st.integers(4502, 4534)
resources = st.tuples(ports, ports).map(sorted).map(lambda pair: SocketResource(PortSet(((pair[0], pair[1]),))))
rules = st.builds(
    AccessRule,
    st.lists(origins, min_size=1, max_size=3).map(tuple),
    st.lists(resources, min_size=1, max_size=3).map(tuple),
)
policies = st.lists(rules, max_size=3).map(lambda chosen: AccessPolicy(tuple(chosen)))

WORDS = [
    *(
        "<access-policy>",
        "</access-policy>",
        "<cross-domain-access>",
        "</cross-domain-access>",
        "<policy>",
        "</policy>",
    ),
    *("<allow-from>", "</allow-from>", "<grant-to>", "</grant-to>", "<domain", "<socket-resource", "/>", ">", FROM, TO),
    *(" uri=", " port=", " protocol=", "'*'", "'4502'", "'tcp'", "'http://*'", "<!-- -->", "\0", "x", "&amp;"),
]


def file(body: str) -> bytes:
    """`body` begins line 3."""
    return f"<access-policy>\n<cross-domain-access>\n{body}</cross-domain-access></access-policy>".encode()


def rule(uri: str, *ports: str) -> AccessRule:
    return AccessRule((Origin.parse(uri),), tuple(map(SocketResource.parse, ports)))


class TestParse:
    @pytest.mark.parametrize(
        ("body", "expected"),
        [
            ("", AccessPolicy()),
            (RULE, AccessPolicy((rule("*", "4502-4534"),))),
            (f"<!-- x -->\n<policy>\n{TO}{FROM}</policy>", AccessPolicy((rule("*", "4502-4534"),))),
            (RULE * 2, AccessPolicy((rule("*", "4502-4534"),) * 2)),
            (
                "<policy><allow-from http-request-headers='*' http-methods='*'><domain uri='file:///'/>"
                "<domain uri='https://*.a.com'></domain></allow-from>"
                "<grant-to><socket-resource protocol='tcp' port='4502'/>"
                "<socket-resource port='4504-4506' protocol='tcp'/></grant-to></policy>",
                AccessPolicy(
                    (
                        AccessRule(
                            (Origin("file"), Origin("https", DomainPattern("a.com", wildcard=True))),
                            (SocketResource.parse("4502"), SocketResource.parse("4504-4506")),
                        ),
                    )
                ),
            ),
        ],
    )
    def test_grammar(self, body: str, expected: AccessPolicy) -> None:
        assert parse(file(body)) == expected

    def test_around_the_xml_it_is_read_as_the_other_dialect(self) -> None:
        declaration = '<?xml version="1.0" encoding="utf-8"?>\r\n'
        assert parse(b"\xef\xbb\xbf" + declaration.encode() + file(RULE) + b"\n\0") == parse(file(RULE))
        assert parse(file(RULE).decode().encode("utf-16")) == parse(file(RULE))

    def test_places(self) -> None:
        assert [each.location for each in parse(file(f"{RULE}\n {RULE}")).rules] == [Location(3, 1), Location(4, 2)]

    @pytest.mark.parametrize(
        ("text", "line", "column", "fragment"),
        [
            ("<cross-domain-policy/>", 1, 1, "this is a Flash policy; serve it with the flash dialect"),
            ("<policy-file-request/>", 1, 1, "this is a client's request"),
            ("\n<cross-domain-access/>", 2, 1, "the root element is missing"),
            ("<html/>", 1, 1, "HTML"),
            ("<Access-Policy/>", 1, 1, "the root element is <Access-Policy>; write <access-policy>, in lower case"),
            ("<access-policy x='1'/>", 1, 16, 'access-policy has no attribute "x"; remove it'),
            (
                "<access-policy/>",
                1,
                1,
                "access-policy has no cross-domain-access; write <cross-domain-access> inside it",
            ),
            ("<access-policy><policy/></access-policy>", 1, 16, "<policy> stands inside access-policy"),
        ],
    )
    def test_wrong_root(self, text: str, line: int, column: int, fragment: str) -> None:
        self.refused(text.encode(), line, column, fragment)

    @pytest.mark.parametrize(
        ("body", "line", "column", "fragment"),
        [
            (
                "</cross-domain-access><cross-domain-access>",
                3,
                23,
                "a second cross-domain-access, after the one at line 2",
            ),
            ("<policy/>", 3, 1, "policy has no allow-from"),
            (f"<policy>{FROM}</policy>", 3, 1, "policy has no grant-to; write <grant-to> inside it"),
            (f"<policy>{TO}</policy>", 3, 1, "policy has no allow-from"),
            (f"<policy>\n{FROM}\n{FROM}{TO}</policy>", 5, 1, "a second allow-from, after the one at line 4, column 1"),
            (f"<policy>\n{FROM}{TO}\n{TO}</policy>", 5, 1, "a second grant-to"),
            (f"<policy><allow-from/>{TO}</policy>", 3, 9, "allow-from has no domain"),
            (f"<policy>{FROM}<grant-to/></policy>", 3, 51, "grant-to has no socket-resource"),
            (f"<policy a='1'>{FROM}{TO}</policy>", 3, 9, 'policy has no attribute "a"; remove it'),
            ("<allow-access-from/>", 3, 1, "<allow-access-from> stands inside cross-domain-access; write policy"),
        ],
    )
    def test_wrong_structure(self, body: str, line: int, column: int, fragment: str) -> None:
        self.refused(file(body), line, column, fragment)

    @pytest.mark.parametrize(
        ("attributes", "column", "fragment"),
        [
            ("", 1, "domain has no uri"),
            ("uri=''", 14, 'the uri "" is not one of a site; write "*", "http://*"'),
            ("uri='a.com'", 14, 'the uri "a.com" is not one of a site'),
            ("uri='ftp://a.com'", 14, 'the uri "ftp://a.com" is not'),
            ("uri='HTTP://a.com'", 14, 'the uri "HTTP://a.com" is not'),
            ("uri='file://c:/'", 14, "is not one of a site"),
            ("uri='http://'", 14, "the domain is empty"),
            ("uri='http://a.com/x.xap'", 14, "has more than scheme, host and port"),
            ("uri='http://a.com?x'", 14, "has more than scheme, host and port"),
            ("uri='http://a.com:'", 14, "has no port after its colon"),
            ("uri='http://a.com:0'", 14, "has no port after its colon"),
            ("uri='http://a.com:99999'", 14, "there is no port 99999"),
            ("uri='http://*:8080'", 14, "is no origin"),
            ("uri='http://a.*.com'", 14, "has a wildcard where clients know none"),
            ("uri='http://a b'", 14, "is not a host name"),
            ("uri='*' url='*'", 17, 'domain has no attribute "url"; remove it; known are uri'),
        ],
    )
    def test_wrong_domain(self, attributes: str, column: int, fragment: str) -> None:
        body = f"<policy><allow-from>\n<domain {attributes}/></allow-from>{TO}</policy>"
        self.refused(file(body), 4, column, fragment)

    @pytest.mark.parametrize(
        ("attributes", "column", "fragment"),
        [
            ("protocol='tcp'", 1, "socket-resource has no port"),
            ("port='4502'", 1, 'socket-resource has no protocol; write protocol="tcp"'),
            ("port='4502' protocol='Tcp'", 40, 'the protocol is "Tcp"; write "tcp", in lower case'),
            ("port='4502' protocol='udp'", 40, 'the protocol is "udp"'),
            ("protocol='tcp' port='*'", 39, 'the port is "*", which Silverlight does not know; write "4502-4534"'),
            ("protocol='tcp' port='4501-4531'", 39, '"4501-4531" is not within 4502-4534'),
            ("protocol='tcp' port='4535'", 39, '"4535" is not within 4502-4534'),
            ("protocol='tcp' port='4502,4504'", 39, '"4502,4504" is a list'),
            ("protocol='tcp' port='4502,4503'", 39, '"4502,4503" is a list'),
            ("protocol='tcp' port='4506-4502'", 39, "the range 4506-4502 is reversed"),
            ("protocol='tcp' port=' 4502'", 39, 'the port " 4502" has spaces around it'),
            ("protocol='tcp' port='4502 - 4506'", 39, "is neither a port nor a range"),
            ("protocol='tcp' port='04502'", 39, "begins with a zero"),
            ("protocol='tcp' port=''", 39, "the port list is empty"),
            ("protocol='tcp' port='4502' x=''", 45, 'socket-resource has no attribute "x"'),
        ],
    )
    def test_wrong_socket_resource(self, attributes: str, column: int, fragment: str) -> None:
        body = f"<policy>{FROM}<grant-to>\n<socket-resource {attributes}/></grant-to></policy>"
        self.refused(file(body), 4, column, fragment)

    def test_wrong_nesting(self) -> None:
        inside = "<domain uri='*'>\n<domain uri='*'/></domain>"
        self.refused(file(f"<policy><allow-from>{inside}</allow-from>{TO}</policy>"), 4, 1, "close domain with />")
        body = f"<policy>{FROM}<grant-to>\n<resource path='/' include-subpaths='true'/></grant-to></policy>"
        self.refused(file(body), 4, 1, "<resource> is for HTTP policies only; write a socket-resource beside it")

    @pytest.mark.parametrize(
        ("resource", "wrong"),
        [
            ("<resource path='/' include-subpaths='true'/>", ""),
            ("<resource path='/x'/>", ""),
            ("<resource/>", "resource has no path"),
            ("<resource path=''/>", "the path is empty"),
            ("<resource path='/' include-subpaths='yes'/>", 'include-subpaths is "yes"'),
            ("<resource path='/' x=''/>", 'resource has no attribute "x"'),
        ],
    )
    def test_a_file_for_http_too(self, resource: str, wrong: str) -> None:
        data = file(f"<policy>{FROM}{TO.replace('<socket', resource + '<socket', 1)}</policy>")
        if wrong:
            with pytest.raises(GrammarError, match=re.escape(wrong)):
                parse(data)
        else:
            assert parse(data) == parse(file(f"<policy>{FROM}{TO}</policy>"))

    def refused(self, data: bytes, line: int, column: int, fragment: str) -> None:
        with pytest.raises(PolicyError) as caught:
            parse(data)
        assert fragment in str(caught.value)
        assert (caught.value.line, caught.value.column) == (line, column)

    @thorough
    @given(
        st.binary() | st.text().map(str.encode) | st.lists(st.sampled_from(WORDS)).map(lambda w: "".join(w).encode())
    )
    def test_any_bytes(self, data: bytes) -> None:
        policy_or_error(data)

    @thorough
    @given(policies, st.data())
    def test_any_damage(self, policy: AccessPolicy, data: st.DataObject) -> None:
        whole = render(policy)
        at = data.draw(st.integers(0, len(whole)))
        policy_or_error(whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + data.draw(st.integers(0, 3)) :])


def policy_or_error(data: bytes) -> None:
    """Parse: a policy or a PolicyError of one line with a place; what parses is rendered."""
    try:
        policy, error = parse(data), None
    except PolicyError as refusal:
        policy, error = None, refusal
    if policy:
        assert parse(render(policy)) == policy
    if error:
        assert error.location
        assert str(error).isprintable()


class TestModel:
    @pytest.mark.parametrize(
        ("text", "origin"),
        [
            ("*", Origin()),
            ("http://*", Origin("http")),
            ("https://*", Origin("https")),
            ("file:///", Origin("file")),
            ("http://A.com/", Origin("http", DomainPattern("a.com"))),
            ("http://a.com:80", Origin("http", DomainPattern("a.com"))),
            ("https://a.com:80", Origin("https", DomainPattern("a.com"), 80)),
            ("https://*.a.com:8443", Origin("https", DomainPattern("a.com", wildcard=True), 8443)),
            ("http://192.0.2.1", Origin("http", DomainPattern("192.0.2.1"))),
        ],
    )
    def test_origin(self, text: str, origin: Origin) -> None:
        assert Origin.parse(text) == origin
        assert Origin.parse(str(origin)) == origin

    @pytest.mark.parametrize(
        "arguments",
        [
            ("ftp",),
            ("", DomainPattern("a.com")),
            ("file", DomainPattern("a.com")),
            ("http", DomainPattern("", wildcard=True), 80),
            ("http", DomainPattern("a.com"), 0),
        ],
    )
    def test_what_no_uri_can_say(self, arguments: tuple) -> None:
        with pytest.raises(DomainError):
            Origin(*arguments)

    @pytest.mark.parametrize("ranges", [((4502, 4502), (4504, 4504)), ((80, 80),), ((4502, 4535),)])
    def test_no_socket_resource(self, ranges: tuple) -> None:
        with pytest.raises(PortsError):
            SocketResource(PortSet(ranges))

    def test_a_rule_is_for_somebody_and_something(self) -> None:
        for origins, resources in (((), (SocketResource.parse("4502"),)), ((Origin(),), ())):
            with pytest.raises(GrammarError, match="allows nobody"):
                AccessRule(origins, resources)


class TestRender:
    def test_canonical(self) -> None:
        assert render(AccessPolicy((rule("http://*.A.com", "4502-4506", "4510"),))).decode().splitlines() == [
            '<?xml version="1.0"?>',
            "<access-policy>",
            "<cross-domain-access>",
            "<policy>",
            "<allow-from>",
            '<domain uri="http://*.a.com"/>',
            "</allow-from>",
            "<grant-to>",
            '<socket-resource port="4502-4506" protocol="tcp"/>',
            '<socket-resource port="4510" protocol="tcp"/>',
            "</grant-to>",
            "</policy>",
            "</cross-domain-access>",
            "</access-policy>",
        ]

    @thorough
    @given(policies)
    def test_identity(self, policy: AccessPolicy) -> None:
        data = render(policy)
        assert parse(data) == policy
        assert render(parse(data)) == data
        assert data.isascii()
        assert compile_reply(data) == data


class TestCompileReply:
    @pytest.mark.parametrize("end", [b"", b"\n", b"\r\n "])
    def test_byte_for_byte_without_nul(self, end: bytes) -> None:
        data = b"\xef\xbb\xbf<!-- as written -->" + file(RULE) + end
        assert compile_reply(data) == data
        assert compile_reply(data + b"\0") == data

    @pytest.mark.parametrize("data", [b"", b"<cross-domain-policy/>", file("x"), file(RULE) + b"\0\0"])
    def test_invalid(self, data: bytes) -> None:
        with pytest.raises(PolicyError):
            compile_reply(data)

    @pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
    def test_utf16_can_be_read_but_not_served(self, encoding: str) -> None:
        with pytest.raises(DocumentError, match="the policy is UTF-16"):
            compile_reply(file(RULE).decode().encode(encoding))


def test_the_dialects_point_at_each_other() -> None:
    with pytest.raises(GrammarError, match="Silverlight policy; serve it with the silverlight dialect"):
        flash.parse(file(RULE))
