"""Silverlight: what is documented and what Moonlight's source does, as a table; its ports against a model."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashpol.policy import decide

URL = "http://www.example.com/app.xap"


def resource(port: str = "4502-4534", protocol: str = "tcp") -> str:
    return f'<socket-resource port="{port}" protocol="{protocol}"/>'


def part(uri: str = "*", *resources: str, more: str = "") -> str:
    return (
        f'<policy><allow-from><domain uri="{uri}"/></allow-from>'
        f"<grant-to>{''.join(resources or (resource(),))}</grant-to>{more}</policy>"
    )


def policy(*parts: str, root: str = "access-policy") -> bytes:
    return (
        f"<{root}>\n<cross-domain-access>{''.join(parts)}</cross-domain-access></{root.split(maxsplit=1)[0]}>".encode()
    )


PORTS = "protocol.md: one port or one range within 4502-4534; * or 4501-4531 voids the whole policy; no comma lists"
PROTOCOL = "protocol.md: protocol exactly tcp in lower case"
URIS = "protocol.md: uri: *, http://*, https://*, file:///, scheme://*.host"
ANY = "protocol.md: any policy with a matching origin and port allows"
SOURCE = "ClientAccessPolicy.cs, ClientAccessPolicyParser.cs"
ASKED = "protocol.md: Silverlight / Moonlight, port 943"


@pytest.mark.parametrize(
    ("data", "content", "port", "options", "expected", "source"),
    [
        (policy(part()), URL, 4502, {}, True, PORTS),
        (policy(part()), URL, 4534, {}, True, PORTS),
        (policy(part()), URL, 4501, {}, False, PORTS),
        (policy(part("*", resource("4510"))), URL, 4510, {}, True, PORTS),
        (policy(part("*", resource("4510"))), URL, 4511, {}, False, PORTS),
        (policy(part("*", resource("*"))), URL, 4510, {}, False, PORTS),
        (policy(part("*", resource("4501-4531"))), URL, 4510, {}, False, PORTS),
        (policy(part("*", resource("4510,4511"))), URL, 4510, {}, False, PORTS),
        (policy(part("*", resource("80"), resource("4510"))), URL, 4510, {}, False, PORTS),
        (policy(part(), part("*", resource("80"))), URL, 4510, {}, False, PORTS),
        (policy(part("*", resource("4520-4510"))), URL, 4515, {}, False, SOURCE),
        (policy(part("*", resource("4510", "TCP"))), URL, 4510, {}, False, PROTOCOL),
        (policy(part("*", resource("80", "udp"), resource("4510"))), URL, 4510, {}, True, SOURCE),
        (policy(part("http://*")), URL, 4510, {}, True, URIS),
        (policy(part("http://*")), "https://www.example.com/", 4510, {}, False, URIS),
        (policy(part("http://*")), "http://www.example.com:8080/", 4510, {}, False, SOURCE),
        (policy(part("https://*")), "https://www.example.com/", 4510, {}, True, URIS),
        (policy(part("file:///")), "file:///C:/app.xap", 4510, {}, True, URIS),
        (policy(part("file:///")), URL, 4510, {}, False, URIS),
        (policy(part("http://*.example.com")), URL, 4510, {}, True, URIS),
        (policy(part("http://*.example.com")), "http://other.com/", 4510, {}, False, URIS),
        (policy(part("http://*.example.com")), "http://example.com/", 4510, {}, True, SOURCE),
        (policy(part("http://*.example.com")), "http://badexample.com/", 4510, {}, True, SOURCE + ": EndsWith"),
        (policy(part("http://*.example.com")), "https://www.example.com/", 4510, {}, False, URIS),
        (policy(part("http://www.example.com")), URL, 4510, {}, True, SOURCE),
        (policy(part("http://www.example.com:80/")), URL, 4510, {}, True, SOURCE),
        (policy(part("http://www.example.com:81/")), URL, 4510, {}, False, SOURCE),
        (policy(part("http://www.example.com/app.xap")), URL, 4510, {}, True, SOURCE),
        (policy(part("http://www.example.com/other.xap")), URL, 4510, {}, False, SOURCE),
        (policy(part("www.example.com")), URL, 4510, {}, False, SOURCE),
        (policy(part("http://www.example.com")), "www.example.com", 4510, {}, False, "issue 3: the stricter reading"),
        (policy(part("*")), "www.example.com", 4510, {}, True, URIS),
        (policy(part("http://a.b"), part("*")), URL, 4510, {}, True, ANY),
        (policy(part("http://a.b"), part("*", resource("4511"))), URL, 4510, {}, False, ANY),
        (policy(part(more="<x></x>")), URL, 4510, {}, False, SOURCE),
        (policy(part(more="<x/>")), URL, 4510, {}, True, SOURCE),
        (policy(part("*", "<resource path=''/>", resource())), URL, 4510, {}, False, SOURCE),
        (policy(part("*", "<resource path='/'/>", resource())), URL, 4510, {}, True, SOURCE),
        (policy(part("*", '<socket-resource protocol="tcp"/>')), URL, 4510, {}, False, SOURCE),
        (policy(part(), root='access-policy xmlns="urn:x"'), URL, 4510, {}, False, SOURCE),
        (policy(part()), URL, 4510, {"served_from": 943}, True, ASKED),
        (policy(part()), URL, 4510, {"served_from": 843}, False, ASKED),
        (("\ufeff" + policy(part()).decode()).encode("utf-16-le"), URL, 4510, {}, True, SOURCE),
        (policy(part()).decode().encode("utf-16-le"), URL, 4510, {}, False, SOURCE),
        (b" \n" + policy(part()), URL, 4510, {}, True, SOURCE),
        (b'<cross-domain-policy/>', URL, 4510, {}, False, "protocol.md 20: Flash XML on 943"),
        (b"<access-policy/>", URL, 4510, {}, False, SOURCE),
    ],
)  # fmt: skip
def test_truth(*, data: bytes, content: str, port: int, options: dict, expected: bool, source: str) -> None:
    [decision] = decide(data, content, port, clients=["silverlight"], **options)
    assert decision.allowed is expected, source


def test_places() -> None:
    [yes] = decide(policy(part()), URL, 4510, clients=["silverlight"])
    assert (yes.line, yes.column) == (2, 82)
    [void] = decide(policy(part("*", resource("*"))), URL, 4510, clients=["silverlight"])
    assert (void.line, "voids the whole policy" in void.reason) == (2, True)


ends = st.sampled_from([1, 80, 4501, 4502, 4510, 4520, 4534, 4535, 65535])
texts = ends.map(str) | st.tuples(ends, ends).map("{0[0]}-{0[1]}".format) | st.sampled_from(["*", "", "x", "4502,4510"])


def model(texts: list[str], port: int) -> bool:
    opened: set[int] = set()
    for text in texts:
        try:
            low, high = (int(end) for end in (text.split("-") if "-" in text else (text, text)))
        except ValueError:
            return False
        if min(low, high) < 4502 or max(low, high) > 4534:
            return False
        opened.update(range(low, high + 1))
    return port in opened


@given(st.lists(texts, min_size=1, max_size=3), ends)
@settings(max_examples=300)
def test_ports_as_brute_force_says(chosen: list[str], port: int) -> None:
    [decision] = decide(policy(part("*", *map(resource, chosen))), URL, port, clients=["silverlight"])
    assert decision.allowed is model(chosen, port)
