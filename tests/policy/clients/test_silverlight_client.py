"""Silverlight: what is documented and what Moonlight's source does, as a table; its ports against a model."""

from dataclasses import dataclass
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.policy import decide
from testkit.examples import examples

URL = "http://www.example.com/app.xap"


def resource(port: str = "4502-4534", protocol: str = "tcp", more: str = "") -> str:
    return f'<socket-resource port="{port}" protocol="{protocol}" {more}/>'


def part(
    uri: str = "*", *resources: str, more: str = "", domains: tuple[str | None, ...] = (), attributes: str = ""
) -> str:
    named = "".join("<domain/>" if one is None else f'<domain uri="{one}"/>' for one in domains or (uri,))
    return (
        f"<policy><allow-from {attributes}>{named}</allow-from>"
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
        (policy(part(domains=("http://a.b", "http://www.example.com"))), URL, 4510, {}, True, ANY),
        (policy(part(domains=("http://www.example.com", None))), URL, 4510, {}, True, SOURCE + ": Domains.All"),
        (policy(part(domains=(None, "http://www.example.com"))), URL, 4510, {}, False, SOURCE + ": an exception"),
        (policy(part(domains=(None, "*"))), URL, 4510, {}, True, SOURCE + ": AllowAnyDomain comes first"),
        (policy(part(domains=(None,)), part()), URL, 4510, {}, False, SOURCE + ": an exception"),
        (policy(part(attributes='http-request-headers="SOAPAction"')), URL, 4510, {}, True, SOURCE + ": null headers"),
        (policy(part(attributes='http-methods="PUT"')), URL, 4510, {}, True, SOURCE + ": GET"),
        (policy(part(attributes='http-method="*"')), URL, 4510, {}, False, SOURCE + ": n != 0"),
        (policy(part(), part(attributes='xmlns="urn:x"')), URL, 4510, {}, False, SOURCE + ": ReadStartElement"),
        (policy(part("*", resource(more='xmlns="urn:x"'))), URL, 4510, {}, False, SOURCE + ": NamespaceURI"),
        (policy(part("*", resource("80", more='xmlns="urn:x"'), resource())), URL, 4510, {}, True, SOURCE),
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
def test_silverlight_decides_as_its_source(
    *, data: bytes, content: str, port: int, options: dict, expected: bool, source: str
) -> None:
    [decision] = decide(data, content, port, clients=["silverlight"], **options)
    assert decision.allowed is expected, source


def test_silverlight_decision_names_the_place() -> None:
    [yes] = decide(policy(part()), URL, 4510, clients=["silverlight"])
    assert (yes.line, yes.column) == (2, 83)
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
@examples(300)
def test_silverlight_ports_agree_with_a_model(chosen: list[str], port: int) -> None:
    [decision] = decide(policy(part("*", *map(resource, chosen))), URL, port, clients=["silverlight"])
    assert decision.allowed is model(chosen, port)


SCHEMES, HOSTS = ("http", "https", "file", "HTTP"), ("", "a.com", "b.a.com", "ba.com", "A.com")
PORTS_OF_URIS, PATHS = ("", ":80", ":443", ":8080"), ("", "/", "/x.xap", "/y")
uris = st.sampled_from(["*", "http://*", "https://*", "http://*/", "file:///", "a.com"]) | st.tuples(
    st.sampled_from(SCHEMES),
    st.sampled_from(["", "*.", "*"]),
    st.sampled_from(HOSTS),
    st.sampled_from(PORTS_OF_URIS),
    st.sampled_from(PATHS),
).filter(lambda parts: parts[2] or not parts[1]).map("{0[0]}://{0[1]}{0[2]}{0[3]}{0[4]}".format)
contents = st.sampled_from(["file:///x.xap", "file:///y"]) | st.tuples(
    st.sampled_from(["http", "https"]),
    st.sampled_from([host for host in HOSTS if host]),
    st.sampled_from(PORTS_OF_URIS),
    st.sampled_from(PATHS),
).map("{0[0]}://{0[1]}{0[2]}{0[3]}".format)


@dataclass
class Uri:
    """As .NET's Uri has it."""

    scheme: str
    host: str
    port: int
    path: str

    @classmethod
    def create(cls, text: str) -> "Uri | None":
        split = urlsplit(text)
        if not split.scheme or "*" in text or (split.netloc.partition(":")[0] == "") != (split.scheme == "file"):
            return None
        if split.scheme == "file" and (split.netloc or not split.path):
            return None
        port = split.port or {"http": 80, "https": 443}.get(split.scheme, -1)
        return cls(split.scheme, split.hostname or "", port, split.path or "/")

    @property
    def root(self) -> str:
        usual = self.port == {"http": 80, "https": 443}.get(self.scheme, -1)
        return f"{self.scheme}://{self.host}" + ("/" if usual else f":{self.port}/")


def matches(policy: str, content: str) -> bool:
    """`AllowFrom.IsAllowed` and `CheckDomainUri`."""
    if policy == "*":
        return True
    application, uri = Uri.create(content), Uri.create(policy)
    assert application is not None
    if uri is not None:
        return uri.path in ("/", application.path) and uri.root == application.root
    if policy in ("http://*", "https://*") and policy.partition(":")[0] == application.scheme:
        return application.port == {"http": 80, "https": 443}[application.scheme]
    return matches_wildcard(policy, application)


def matches_wildcard(policy: str, application: Uri) -> bool:
    size = len(application.scheme)
    if not policy.startswith(application.scheme) or policy[size : size + 5] != "://*.":
        return False
    uri = Uri.create(policy[: size + 3] + policy[size + 5 :])
    if uri is None or uri.path != "/" or uri.port != application.port:
        return False
    return application.host.endswith(uri.host)


@given(st.lists(uris, min_size=1, max_size=4), contents)
@examples(500)
def test_silverlight_uris_agree_with_a_model(chosen: list[str], content: str) -> None:
    data = policy(*(part(uri, resource(str(4510 + at))) for at, uri in enumerate(chosen)))
    for at, uri in enumerate(chosen):
        [decision] = decide(data, content, 4510 + at, clients=["silverlight"])
        assert decision.allowed is matches(uri, content), uri


def test_silverlight_names_the_first_policy_that_allows() -> None:
    data = policy(part("http://*.com"), "\n", part("http://www.example.com"), "\n", part("*"))
    [decision] = decide(data, URL, 4510, clients=["silverlight"])
    assert (decision.line, "http://*.com" in decision.reason) == (2, True)
