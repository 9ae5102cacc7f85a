"""Decisions as a library: arguments, documents that no client reads, and laws that hold for all clients."""

import doctest
import importlib
import pickle
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import flashpol.policy
from flashpol.policy import DECIDE_CLIENTS, Decider, Decision, PolicyError, decide, parse
from flashpol.policy.reader import read
from testkit.examples import examples

POLICY = (
    b'<cross-domain-policy>\n<allow-access-from domain="*.example.com" to-ports="4510"/>\n'
    b'<allow-access-from domain="*" to-ports="4511"/>\n</cross-domain-policy>'
)
URL = "http://www.example.com/game.swf"
DOCS = Path(__file__).parents[2] / "docs"


def test_decide_without_clients_asks_flash() -> None:
    assert [decision.client for decision in decide(POLICY, URL, 4510)] == ["flash"]
    assert tuple(decision.client for decision in Decider(POLICY).decide(URL, 4510)) == DECIDE_CLIENTS
    assert [decision.client for decision in decide(POLICY, URL, 4510, clients=["unity", "flash", "unity"])] == [
        "unity",
        "flash",
    ]


def test_decider_asks_each_client() -> None:
    decisions = Decider(POLICY).decide(URL, 4510)
    assert [(decision.allowed, decision.line) for decision in decisions] == [
        (True, 2), (True, 2), (False, 3), (False, 1), (True, 2),
    ]  # fmt: skip


def test_decide_accepts_an_element() -> None:
    root = read(POLICY.decode(), lambda element: None)
    assert Decider(root).decide(URL, 4510) == Decider(POLICY).decide(URL, 4510)


def test_decision_is_frozen_and_comparable() -> None:
    [decision] = decide(POLICY, URL, 4510)
    assert pickle.loads(pickle.dumps(decision)) == decision
    assert isinstance(decision, Decision)
    with pytest.raises(AttributeError):
        flashpol.policy.Decisions  # type: ignore[attr-defined] # noqa: B018


def test_decide_function_is_not_hidden_by_its_module() -> None:
    importlib.import_module("flashpol.policy.decide")
    assert callable(flashpol.policy.decide)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "empty"),
        ("x" * 3000, "too long"),
        ("http://", "names no host"),
        ("http://:80/", "names no host"),
        ("http://user@/", "names no host"),
        ("http://a.example:99999/", "port above 65,535"),
        ("http://a b.example/", "not a URL"),
        ("http://b\u00fccher.example/", 'write the "xn--" form'),
        ("a.example:80", "contains a port"),
        ("a.example/game.swf", 'is a URL without a scheme; write "http://a.example/game.swf"'),
        ("*.example.com", 'is a pattern; write one host that it stands for, such as "www.example.com"'),
        ("*", "is a pattern"),
        ("http://*.example.com/", "is a pattern"),
        ("//example.com/x.swf", 'is a URL without a scheme; write "http://example.com/x.swf"'),
        ("C:\\games\\x.swf", "is a path; write it as a URL: file:///"),
        ("/games/x.swf", "is a path"),
        ("./x.swf", "is a path"),
        ("about:blank", "has no host; write a URL as in http://www.example.com/game.swf, or name its sandbox"),
        ("data:application/x-shockwave-flash,x", "has no host"),
        ("javascript:x", "has no host"),
        ("300.1.2.3", "is not an IPv4 address"),
        ("http://300.1.2.3/", "is not an IPv4 address"),
        ("[::1", "not an IP address"),
        ("a\nb", "not a URL"),
    ],
)
def test_decide_invalid_content_raises(content: str, words: str) -> None:
    with pytest.raises(PolicyError, match=r"content|domain") as caught:
        decide(POLICY, content, 80)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("port", [0, -1, 65536, True, "80", 80.0, None])
def test_decide_invalid_port_raises(port: object) -> None:
    for arguments in ({"port": port}, {"port": 80, "served_from": port}):
        if arguments != {"port": 80, "served_from": None}:
            with pytest.raises(PolicyError, match="there is no port"):
                decide(POLICY, URL, **arguments)  # type: ignore[arg-type]


def test_decider_unknown_client_raises() -> None:
    with pytest.raises(PolicyError, match='there is no client "safari"; write one of flash, lightspark'):
        Decider(POLICY, ["safari"])


@pytest.mark.parametrize(
    "content",
    ["HTTP://WWW.Example.COM:80/x", "https://www.example.com?a#b", "www.example.com", "ftp://www.example.com"],
)
def test_decide_accepts_spellings_of_content(content: str) -> None:
    assert decide(POLICY, content, 4510)[0].allowed


def test_decide_final_dot_makes_another_name() -> None:
    assert not decide(POLICY, "http://www.example.com./", 4510)[0].allowed


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"<",
        b"GET / HTTP/1.1",
        b"<cross-domain-policy>",
        b"\xff\xfe<",
        b"<a>&x;</a>",
        b"<!DOCTYPE a [<!ENTITY",
    ],
)
def test_decide_unreadable_document_is_denied_by_all(data: bytes) -> None:
    decider = Decider(data)
    assert decider.error is not None
    decisions = decider.decide(URL, 4510)
    assert not any(decision.allowed for decision in decisions)
    assert all("there is no policy" in decision.reason for decision in decisions)


# ---------------------------------------------------------------------------------------------------------------- laws

WORDS = [
    *("<cross-domain-policy>", "</cross-domain-policy>", "<allow-access-from", "<site-control", "/>", ">", "<"),
    *(" domain=", " to-ports=", " secure=", " permitted-cross-domain-policies=", "'", "'*'", "'4500-4510'", "'4510'"),
    *("'*.example.com'", "'all'", "'none'", "'true'", "<access-policy>", "</access-policy>", "<policy>", "</policy>"),
    *("<cross-domain-access>", "</cross-domain-access>", "<allow-from>", "</allow-from>", "<grant-to>", "</grant-to>"),
    *(
        "<domain uri='*'/>",
        "<socket-resource port='4510' protocol='tcp'/>",
        "<resource/>",
        "<!--",
        "-->",
        "\0",
        "\ufeff",
    ),
]
elements = st.sampled_from(
    [
        "<allow-access-from/>", "<allow-access-from domain='*' to-ports='*'/>", "<x a='b'/>", "<site-control/>",
        "<allow-access-from domain='*' to-ports='4500-4510' secure='true'/>", "<site-control x='y'/>",
        "<allow-http-request-headers-from/>", "<allow-access-from domain='*.EXAMPLE.com' to-ports='4510,'/>",
        "<site-control permitted-cross-domain-policies='all'/>", "<allow-access-from><x/></allow-access-from>",
        "<cross-domain-access><policy><allow-from><domain/></allow-from></policy></cross-domain-access>",
        "<cross-domain-access><policy><grant-to><socket-resource protocol='tcp'/></grant-to></policy>"
        "</cross-domain-access>",
    ]
)  # fmt: skip
trees = st.tuples(st.sampled_from(["cross-domain-policy", "access-policy", "x"]), st.lists(elements, max_size=4)).map(
    lambda tree: f"<{tree[0]}>{''.join(tree[1])}</{tree[0]}>".encode()
)
anything = st.one_of(
    st.binary(max_size=60),
    st.lists(st.sampled_from(WORDS), max_size=20).map(lambda words: "".join(words).encode()),
    trees,
)


@given(anything, st.sampled_from([URL, "https://a.b:8/x", "file:///x", "192.0.2.1", "[::1]"]), st.integers(1, 65535),
       st.sampled_from([None, 843, 943, 25, 1024, 5000]), st.booleans())  # fmt: skip
@examples(500)
def test_decide_any_policy_gives_a_reason(
    data: bytes, content: str, port: int, source: int | None, local: bool
) -> None:
    decider = Decider(data)
    decisions = decider.decide(content, port, served_from=source, local=local)
    assert [decision.client for decision in decisions] == list(DECIDE_CLIENTS)
    for decision in decisions:
        assert decision.reason
        assert decision.reason.isprintable()
        assert (decision.line is None) == (decision.column is None)
        assert decision.line or not decision.allowed
    if decider.error:
        assert not any(decision.allowed for decision in decisions)


@given(trees, st.sampled_from([URL, "https://a.b/"]), st.sampled_from([80, 4500, 4510, 9000]))
def test_decide_flash_agrees_with_parsed_grants(data: bytes, content: str, port: int) -> None:
    try:
        policy = parse(data)
    except PolicyError:
        return
    host = content.split("/")[2]
    expected = any(
        grant.domain.matches(host) and port in grant.ports and (content.startswith("https") or not grant.secure)
        for grant in policy.grants
    )
    assert decide(data, content, port)[0].allowed is expected


def test_decide_docstring_examples_run() -> None:
    module = importlib.import_module("flashpol.policy.decide")
    result = doctest.testmod(module)
    assert (result.failed, result.attempted > 0) == (0, True)


def test_library_page_examples_run() -> None:
    result = doctest.testfile(str(DOCS / "library.md"), module_relative=False)
    assert (result.failed, result.attempted > 0) == (0, True)
