"""Policy files by URL: the HTTP replies for `/crossdomain.xml` and `/clientaccesspolicy.xml`.

    crossdomain.xml           Flash Player and AIR ask for it before content of another site loads a URL of this scheme,
                              host and port. It opens no socket.
    clientaccesspolicy.xml    The same for Silverlight, which asks here for sockets too if the application sets
                              SocketClientAccessPolicyProtocol.Http: on port 80 only.

Ruffle asks for neither: its loaders are the browser's, which obeys the CORS headers of what is loaded. A policy file is
public, so its reply has one, `Access-Control-Allow-Origin: *`: content that fetches the file itself reads it in Ruffle
as in Flash Player.
"""

from collections.abc import Mapping

from flashpol.policy.findings import CLIENTS
from flashpol.policy.lint_document import LintDocument
from flashpol.policy.ports import CROSSDOMAIN_PATH, SILVERLIGHT_HTTP_PATH

__all__ = ["PATHS", "UrlReplies", "reply"]

PATHS = (CROSSDOMAIN_PATH, SILVERLIGHT_HTTP_PATH)
METHODS = ("GET", "HEAD")

# Flash takes any text/*, and under the meta-policy by-content-type only this one.
_CONTENT_TYPES = {CROSSDOMAIN_PATH: "text/x-cross-domain-policy", SILVERLIGHT_HTTP_PATH: "text/xml"}
# What Flash Player 10 and later assume for HTTP, and version 9 does not.
_DEFAULT_META = "master-only"


def reply(path: str, file: bytes, method: str = "GET") -> bytes:
    """The whole HTTP reply for a file of `PATHS`; the connection is closed after it.

    A HEAD request gets the headers, and any other method than GET a 405. Raises KeyError for another path.
    """
    content_type = _CONTENT_TYPES[path]
    if method not in METHODS:
        body = b"only GET and HEAD are for this file\n"
        return _head("405 Method Not Allowed", "text/plain", body, [f"Allow: {', '.join(METHODS)}"]) + body
    # A policy that was withdrawn must not live on in a cache.
    fields = ["Cache-Control: no-cache", "Access-Control-Allow-Origin: *"]
    if path == CROSSDOMAIN_PATH:
        fields.append(f"X-Permitted-Cross-Domain-Policies: {_meta(file)}")
    head = _head("200 OK", content_type, file, fields)
    return head + file if method == "GET" else head


class UrlReplies:
    """The replies of one listener, made once. files: path -> file, as in `Plan.url_policies`."""

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._replies = {
            (path.encode(), method.encode()): reply(path, file, method)
            for path, file in files.items()
            for method in METHODS
        }
        self._others = {path.encode(): reply(path, file, "POST") for path, file in files.items()}

    def get(self, path: bytes, method: bytes) -> tuple[int, bytes] | None:
        """Status and reply; None for a path that has no file. path: without the query."""
        if found := self._replies.get((path, method)):
            return 200, found
        other = self._others.get(path)
        return (405, other) if other else None


def _head(status: str, content_type: str, body: bytes, fields: list[str]) -> bytes:
    lines = [
        f"HTTP/1.1 {status}",
        f"Content-Type: {content_type}",
        f"Content-Length: {len(body)}",
        *fields,
        "Connection: close",
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii")


def _meta(file: bytes) -> str:
    """The meta-policy that the header repeats: the file's own, so that the two never differ."""
    return LintDocument(file, None, frozenset(CLIENTS), by_url=True).meta or _DEFAULT_META
