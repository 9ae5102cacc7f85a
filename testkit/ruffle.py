"""Ruffle, the Flash player for web pages: its npm package, fetched once into build/, and a web server for its pages."""

import ssl
import threading
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Self

from testkit.npm import FetchError, Missing, Package

__all__ = ["FOLDER", "VERSION", "FetchError", "Missing", "Site", "fetch_ruffle"]

VERSION = "0.6.0"
PACKAGE = Package(
    "ruffle",
    VERSION,
    "3f65f5cc310d06888bb766633dcb14cda0f1a11edf545d9ed54fdb8bb85b2004"
    "048e4ca4c658d2a06f0081bcb01ef9555732fd639b4864c46a0f0226df58e03c",
    scope="@ruffle-rs/",
)
FOLDER = PACKAGE.folder
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript",
    ".css": "text/css",
    ".json": "application/json",
    ".wasm": "application/wasm",  # browsers compile it while it arrives only if this is its type
    ".swf": "application/x-shockwave-flash",
}


def fetch_ruffle(folder: Path = FOLDER) -> Path:
    """The folder with ruffle.js."""
    return PACKAGE.fetch(folder)


Page = bytes | Callable[[], bytes]


class Site:
    """A web server on loopback for pages with Ruffle, whose files are below /ruffle/. Each page is one path.

    >>> with Site({"/": b"<script src=/ruffle/ruffle.js></script>"}, fetch_ruffle()) as site:
    ...     f"http://localhost:{site.port}/"
    """

    def __init__(
        self,
        pages: Mapping[str, Page],
        ruffle: Path,
        *,
        port: int = 0,
        tls: tuple[Path, Path] | None = None,
    ) -> None:
        """pages: their path, with the suffix that says their type, none for HTML; functions make them anew each time.
        tls: the files of a certificate and its key."""

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                path = self.path.partition("?")[0]
                body = self._body(path)
                self.send_response(404 if body is None else 200)
                self.send_header("Content-Type", TYPES.get(Path(path).suffix, TYPES[".html"]))
                self.send_header("Content-Length", str(len(body or b"")))
                self.end_headers()
                self.wfile.write(body or b"")

            def _body(self, path: str) -> bytes | None:
                page = pages.get(path)
                if page is not None:
                    return page() if callable(page) else page
                file = ruffle / Path(path).name
                return file.read_bytes() if path.startswith("/ruffle/") and file.is_file() else None

            def log_message(self, *_: object) -> None:
                """Log nothing."""

        self._server = _Server(("127.0.0.1", port), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(*tls)
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = int(self._server.server_address[1])
        self.scheme = "https" if tls else "http"

    def url(self, host: str = "localhost") -> str:
        return f"{self.scheme}://{host}:{self.port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: object) -> None:
        """A browser that closes a connection, or takes no certificate of a test, is no error of the server."""
