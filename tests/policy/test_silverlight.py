"""Silverlight's dialect: the grammar, the canonical form, and the bytes a server sends."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.policy import (
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
from testkit.examples import examples

thorough = examples(200)

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
    def test_parse_accepts_the_grammar(self, body: str, expected: AccessPolicy) -> None:
        assert parse(file(body)) == expected

    def test_parse_accepts_the_same_around_the_xml_as_flash(self) -> None:
        declaration = '<?xml version="1.0" encoding="utf-8"?>\r\n'
        assert parse(b"\xef\xbb\xbf" + declaration.encode() + file(RULE) + b"\n\0") == parse(file(RULE))
        assert parse(file(RULE).decode().encode("utf-16")) == parse(file(RULE))

    def test_parse_rules_have_their_places(self) -> None:
        assert [each.location for each in parse(file(f"{RULE}\n {RULE}")).rules] == [Location(3, 1), Location(4, 2)]

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
    def test_parse_file_that_is_for_http_too_is_accepted(self, resource: str, wrong: str) -> None:
        data = file(f"<policy>{FROM}{TO.replace('<socket', resource + '<socket', 1)}</policy>")
        if wrong:
            with pytest.raises(GrammarError, match=re.escape(wrong)):
                parse(data)
        else:
            assert parse(data) == parse(file(f"<policy>{FROM}{TO}</policy>"))


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
    def test_origin_parses_and_prints(self, text: str, origin: Origin) -> None:
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
    def test_origin_not_expressible_raises(self, arguments: tuple) -> None:
        with pytest.raises(DomainError):
            Origin(*arguments)

    @pytest.mark.parametrize("ranges", [((4502, 4502), (4504, 4504)), ((80, 80),), ((4502, 4535),)])
    def test_socket_resource_invalid_raises(self, ranges: tuple) -> None:
        with pytest.raises(PortsError):
            SocketResource(PortSet(ranges))

    def test_access_rule_without_origins_or_resources_raises(self) -> None:
        for origins, resources in (((), (SocketResource.parse("4502"),)), ((Origin(),), ())):
            with pytest.raises(GrammarError, match="allows nothing"):
                AccessRule(origins, resources)


class TestRender:
    def test_render_is_canonical(self) -> None:
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
    def test_render_then_parse_is_identity(self, policy: AccessPolicy) -> None:
        data = render(policy)
        assert parse(data) == policy
        assert render(parse(data)) == data
        assert data.isascii()
        assert compile_reply(data) == data


class TestCompileReply:
    @pytest.mark.parametrize("end", [b"", b"\n", b"\r\n "])
    def test_compile_reply_keeps_the_bytes_without_nul(self, end: bytes) -> None:
        data = b"\xef\xbb\xbf<!-- as written -->" + file(RULE) + end
        assert compile_reply(data) == data
        for rest in (b"\0", b"\0\0", b"\0\n", b"\0</html>"):
            assert compile_reply(data + rest) == data

    @pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
    def test_compile_reply_keeps_utf16_with_a_byte_order_mark(self, encoding: str) -> None:
        data = ("\ufeff" + file(RULE).decode()).encode(encoding)
        assert compile_reply(data) == compile_reply(data + b"\0") == data

    @pytest.mark.parametrize(
        "data", [b"", b"<cross-domain-policy/>", file("x"), file(RULE)[:40] + b"\0" + file(RULE)[40:]]
    )
    def test_compile_reply_of_an_invalid_policy_raises(self, data: bytes) -> None:
        with pytest.raises(PolicyError):
            compile_reply(data)


def test_parse_of_the_other_dialect_names_it() -> None:
    with pytest.raises(GrammarError, match="Silverlight policy; serve it with the silverlight dialect"):
        flash.parse(file(RULE))
