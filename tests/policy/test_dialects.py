"""What both dialects owe a wrong file: an error at its place, and nothing but that error whatever the bytes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import test_flash
import test_silverlight
from hypothesis import given
from hypothesis import strategies as st
from test_flash import META_ALL
from test_silverlight import FROM, TO

from flashpol.policy import DocumentError, PolicyError, flash, silverlight
from testkit.examples import examples

thorough = examples(200)


@dataclass(frozen=True)
class Dialect:
    """The functions of one dialect's module, and what its files are made of."""

    parse: Callable[[bytes], Any]
    render: Callable[[Any], bytes]
    compile_reply: Callable[[bytes], bytes]
    policies: st.SearchStrategy[Any]
    words: list[str]


FLASH = Dialect(flash.parse, flash.render, flash.compile_reply, test_flash.policies, test_flash.WORDS)
SILVERLIGHT = Dialect(
    silverlight.parse, silverlight.render, silverlight.compile_reply, test_silverlight.policies, test_silverlight.WORDS
)
both = pytest.mark.parametrize("dialect", [FLASH, SILVERLIGHT], ids=["flash", "silverlight"])

Row = tuple[str, int, int, str]  # a text, the line and the column of its mistake, what is said of it


def flash_file(body: str) -> str:
    """`body` begins line 2."""
    return f"<cross-domain-policy>\n{body}</cross-domain-policy>"


def silverlight_file(body: str) -> str:
    """`body` begins line 3."""
    return test_silverlight.file(body).decode()


def domain(attributes: str) -> str:
    """Line 4."""
    return silverlight_file(f"<policy><allow-from>\n<domain {attributes}/></allow-from>{TO}</policy>")


def resource(attributes: str) -> str:
    """Line 4."""
    return silverlight_file(f"<policy>{FROM}<grant-to>\n<socket-resource {attributes}/></grant-to></policy>")


FLASH_ROWS: list[Row] = [
    # the root
    ("<access-policy/>", 1, 1, "this is a Silverlight policy; serve it with the silverlight dialect"),
    ("<policy-file-request/>", 1, 1, "this is a client's request, not a policy"),
    ('<?xml version="1.0"?>\n<html><body/></html>', 2, 1, "this is an HTML page"),
    ("<allow-access-from/>\n<allow-access-from/>", 1, 1, "the root element is missing"),
    ("<!-- x --><site-control/>\n<allow-access-from/>", 1, 11, "the root element is missing"),
    ("<Cross-Domain-Policy/>", 1, 1, "the root element is <Cross-Domain-Policy>; write <cross-domain-policy>"),
    ('<cross-domain-policy version="1.0"/>', 1, 22, 'cross-domain-policy has no attribute "version"'),
    ('<cross-domain-policy xmlns="x"/>', 1, 22, 'cross-domain-policy has no attribute "xmlns"'),
    # the content
    *(
        (flash_file(body), line, column, said)
        for body, line, column, said in [
            ("<foo/>", 2, 1, "<foo> is not known in socket policies"),
            ("<Allow-Access-From/>", 2, 1, "<Allow-Access-From> is not known"),
            ("<cross-domain-policy/>", 2, 1, "<cross-domain-policy> is inside another"),
            ("<allow-http-request-headers-from domain='*' headers='*'/>", 2, 1, "is for HTTP policies only"),
            ("<allow-access-from-identity/>", 2, 1, "<allow-access-from-identity> is not for sockets"),
            ("<allow-access-from domain='*'/>", 2, 1, 'allow-access-from has no to-ports; write to-ports="'),
            ("<allow-access-from to-ports='*'/>", 2, 1, 'allow-access-from has no domain; write domain="'),
            (
                "<allow-access-from domain='*' to-port='*'/>",
                2,
                31,
                'no attribute "to-port"; remove it; the attrib',
            ),
            ("<allow-access-from domain='*' to-ports='*' headers='*'/>", 2, 44, 'no attribute "headers"'),
            ("<allow-access-from domain='*.' to-ports='*'/>", 2, 28, 'the domain "*." has a wildcard'),
            ("<allow-access-from\n\tdomain='www.q*.com'\n\tto-ports='*'/>", 3, 10, 'the domain "www.q*.com" has'),
            ("<allow-access-from domain='&lt;' to-ports='*'/>", 2, 28, 'the domain "<" is not a host name'),
            ("<allow-access-from domain='*'\n\tto-ports='80,99999'/>", 3, 12, 'there is no port "99999"'),
            ("<allow-access-from domain='*' to-ports='90-80'/>", 2, 41, "the range 90-80 is reversed"),
            ("<allow-access-from domain='*' to-ports=''/>", 2, 41, "the port list is empty"),
            ("<allow-access-from domain='*' to-ports='*' secure='yes'/>", 2, 52, 'secure is "yes"; write "true"'),
            ("<allow-access-from domain='*' to-ports='*' secure='True'/>", 2, 52, 'secure is "True"'),
            ("<allow-access-from domain='*' to-ports='*'><site-control/></allow-access-from>", 2, 44, "is inside"),
            ("<site-control/>", 2, 1, "site-control has no permitted-cross-domain-policies"),
            ("<site-control permitted-cross-domain-policies='by-content-type'/>", 2, 48, "is for HTTP policies only"),
            ("<site-control permitted-cross-domain-policies='by-ftp-filename'/>", 2, 48, "is for FTP policies only"),
            ("<site-control permitted-cross-domain-policies='All'/>", 2, 48, '"All" is not a meta-policy; write'),
            ("<site-control permitted-cross-domain-policies='all' x=''/>", 2, 53, 'site-control has no attribute "x"'),
            (f"{META_ALL}\n{META_ALL}", 3, 1, "a second site-control, after the one at line 2, column 1; keep one"),
        ]
    ),
]

SILVERLIGHT_ROWS: list[Row] = [
    # the root
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
    ("<access-policy><policy/></access-policy>", 1, 16, "<policy> is inside access-policy"),
    # the structure
    *(
        (silverlight_file(body), line, column, said)
        for body, line, column, said in [
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
            ("<allow-access-from/>", 3, 1, "<allow-access-from> is inside cross-domain-access; write policy"),
            # nesting
            (
                f"<policy><allow-from><domain uri='*'>\n<domain uri='*'/></domain></allow-from>{TO}</policy>",
                4,
                1,
                "close domain with />",
            ),
            (
                f"<policy>{FROM}<grant-to>\n<resource path='/' include-subpaths='true'/></grant-to></policy>",
                4,
                1,
                "<resource> is for HTTP policies only; write a socket-resource beside it",
            ),
        ]
    ),
    *(
        (domain(attributes), 4, column, said)
        for attributes, column, said in [
            ("", 1, "domain has no uri"),
            ("uri=''", 14, 'the uri "" does not name a site; write "*", "http://*"'),
            ("uri='a.com'", 14, 'the uri "a.com" does not name a site'),
            ("uri='ftp://a.com'", 14, 'the uri "ftp://a.com" does not name a site'),
            ("uri='HTTP://a.com'", 14, 'the uri "HTTP://a.com" does not name a site'),
            ("uri='file://c:/'", 14, "does not name a site"),
            ("uri='http://'", 14, "the domain is empty"),
            ("uri='http://a.com/x.xap'", 14, "has more than scheme, host and port"),
            ("uri='http://a.com?x'", 14, "has more than scheme, host and port"),
            ("uri='http://a.com:'", 14, "has no port after its colon"),
            ("uri='http://a.com:0'", 14, "has no port after its colon"),
            ("uri='http://a.com:99999'", 14, "there is no port 99999"),
            ("uri='http://*:8080'", 14, "is not an origin"),
            ("uri='http://a.*.com'", 14, "has a wildcard in a place that no client supports"),
            ("uri='http://a b'", 14, "is not a host name"),
            ("uri='*' url='*'", 17, 'domain has no attribute "url"; remove it; the attributes are uri'),
        ]
    ),
    *(
        (resource(attributes), 4, column, said)
        for attributes, column, said in [
            ("protocol='tcp'", 1, "socket-resource has no port"),
            ("port='4502'", 1, 'socket-resource has no protocol; write protocol="tcp"'),
            ("port='4502' protocol='Tcp'", 40, 'the protocol is "Tcp"; write "tcp", in lower case'),
            ("port='4502' protocol='udp'", 40, 'the protocol is "udp"'),
            ("protocol='tcp' port='*'", 39, 'the port is "*", which Silverlight does not support; write "4502-4534"'),
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
        ]
    ),
]


@pytest.mark.parametrize(
    ("dialect", "text", "line", "column", "said"),
    [(FLASH, *row) for row in FLASH_ROWS] + [(SILVERLIGHT, *row) for row in SILVERLIGHT_ROWS],
)
def test_parse_mistake_is_reported_at_its_place(dialect: Dialect, text: str, line: int, column: int, said: str) -> None:
    with pytest.raises(PolicyError) as caught:
        dialect.parse(text.encode())
    assert said in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column)


@both
@thorough
@given(st.binary() | st.text().map(str.encode))
def test_parse_any_bytes_raise_only_policy_errors(dialect: Dialect, data: bytes) -> None:
    policy_or_error(dialect, data)


@both
@thorough
@given(st.data(), st.sampled_from(["", " "]), st.sampled_from(["utf-8", "utf-16", "utf-16-be"]))
def test_parse_any_words_raise_only_policy_errors(
    dialect: Dialect, data: st.DataObject, between: str, encoding: str
) -> None:
    words = data.draw(st.lists(st.sampled_from(dialect.words), max_size=25))
    policy_or_error(dialect, between.join(words).encode(encoding))


@both
@thorough
@given(st.data())
def test_parse_damaged_policy_raises_only_policy_errors(dialect: Dialect, data: st.DataObject) -> None:
    whole = dialect.render(data.draw(dialect.policies))
    at = data.draw(st.integers(0, len(whole)))
    damaged = whole[:at] + data.draw(st.binary(max_size=3)) + whole[at + data.draw(st.integers(0, 3)) :]
    policy_or_error(dialect, damaged)


def policy_or_error(dialect: Dialect, data: bytes) -> None:
    """Parse: a policy or a PolicyError of one line with a place; what parses is rendered."""
    try:
        policy, error = dialect.parse(data), None
    except PolicyError as refusal:
        policy, error = None, refusal
    if policy:
        assert dialect.parse(dialect.render(policy)) == policy
    if error:
        assert error.location
        assert str(error).isprintable()


@both
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@examples(5)
@given(st.data())
def test_compile_reply_of_utf16_raises_although_parse_accepts(
    dialect: Dialect, encoding: str, data: st.DataObject
) -> None:
    policy = data.draw(dialect.policies)
    encoded = dialect.render(policy).decode().removeprefix('<?xml version="1.0"?>\n').encode(encoding)
    assert dialect.parse(encoded) == policy
    if dialect is SILVERLIGHT and encoding == "utf-16":  # with a byte order mark, which Silverlight reads
        assert dialect.compile_reply(encoded) == encoded
        return
    with pytest.raises(DocumentError, match="the policy is UTF-16"):
        dialect.compile_reply(encoded)
