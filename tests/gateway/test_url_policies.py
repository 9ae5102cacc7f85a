"""Replies for policy files by URL, as an HTTP client reads them."""

import socket
from http.client import HTTPResponse

import pytest

from flashpol.gateway.url_policies import PATHS, UrlReplies, reply

CROSSDOMAIN = b'<cross-domain-policy><allow-access-from domain="www.example.com"/></cross-domain-policy>\n'
SILVERLIGHT = b"<access-policy/>"
CONTROL = '<cross-domain-policy><site-control permitted-cross-domain-policies="{}"/></cross-domain-policy>'


def read(data: bytes, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    server, client = socket.socketpair()
    with server, client:
        server.sendall(data)
        server.shutdown(socket.SHUT_WR)
        response = HTTPResponse(client, method=method)
        response.begin()
        body = response.read()
        assert client.recv(1) == b"", "nothing follows the body"
        return response.status, dict(response.getheaders()), body


def test_reply_crossdomain_has_its_type_and_its_meta_policy() -> None:
    assert read(reply("/crossdomain.xml", CROSSDOMAIN)) == (
        200,
        {
            "Content-Type": "text/x-cross-domain-policy",
            "Content-Length": str(len(CROSSDOMAIN)),
            "Cache-Control": "no-cache",
            "Access-Control-Allow-Origin": "*",
            "X-Permitted-Cross-Domain-Policies": "master-only",
            "Connection": "close",
        },
        CROSSDOMAIN,
    )


def test_reply_clientaccesspolicy_is_text_xml() -> None:
    status, headers, body = read(reply("/clientaccesspolicy.xml", SILVERLIGHT))
    assert (status, headers["Content-Type"], body) == (200, "text/xml", SILVERLIGHT)
    assert "X-Permitted-Cross-Domain-Policies" not in headers


@pytest.mark.parametrize("value", ["none", "master-only", "by-content-type", "all"])
def test_reply_crossdomain_header_repeats_the_site_control(value: str) -> None:
    _, headers, _ = read(reply("/crossdomain.xml", CONTROL.format(value).encode()))
    assert headers["X-Permitted-Cross-Domain-Policies"] == value


@pytest.mark.parametrize("path", PATHS)
def test_reply_to_head_has_the_headers_of_get_alone(path: str) -> None:
    get, head = reply(path, CROSSDOMAIN), reply(path, CROSSDOMAIN, "HEAD")
    assert get == head + CROSSDOMAIN
    assert read(head, "HEAD")[1]["Content-Length"] == str(len(CROSSDOMAIN))


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "PUT", "get", ""])
def test_reply_to_another_method_is_405(method: str) -> None:
    status, headers, body = read(reply("/crossdomain.xml", CROSSDOMAIN, method))
    assert (status, headers["Allow"], headers["Connection"]) == (405, "GET, HEAD", "close")
    assert b"cross-domain" not in body


def test_reply_of_an_unknown_path_raises() -> None:
    with pytest.raises(KeyError):
        reply("/", CROSSDOMAIN)


def test_url_replies_find_files_by_path_and_method() -> None:
    replies = UrlReplies({"/crossdomain.xml": CROSSDOMAIN})
    assert replies.get(b"/crossdomain.xml", b"GET") == (200, reply("/crossdomain.xml", CROSSDOMAIN))
    assert replies.get(b"/crossdomain.xml", b"HEAD") == (200, reply("/crossdomain.xml", CROSSDOMAIN, "HEAD"))
    assert replies.get(b"/crossdomain.xml", b"POST") == (405, reply("/crossdomain.xml", CROSSDOMAIN, "POST"))
    for path in (b"/clientaccesspolicy.xml", b"/Crossdomain.xml", b"/crossdomain.xml/", b"", b"\xff"):
        assert replies.get(path, b"GET") is None
    assert UrlReplies({}).get(b"/crossdomain.xml", b"GET") is None
