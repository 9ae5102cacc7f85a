"""A page without a browser: requests to the application, and what an HTML parser sees in the response."""

from html.parser import HTMLParser
from typing import Any

from flashpol.admin.context import AdminContext
from flashpol.admin.endpoint import Application

VOID = frozenset({"br", "input", "link", "meta"})


class Page(HTMLParser):
    """Text and attributes of a page; fails if elements do not close as they opened."""

    def __init__(self, body: bytes) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(body.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def get(
    shown: AdminContext | Application, path: str = "/", method: str = "GET", **environ: str
) -> tuple[str, dict, bytes]:
    """Status line, headers and body of a response."""
    application = shown if isinstance(shown, Application) else Application(shown)
    started: list[Any] = []
    request = {"PATH_INFO": path, "REQUEST_METHOD": method, **environ}
    body = b"".join(application(request, lambda line, headers: started.extend((line, dict(headers)))))
    return started[0], started[1], body


def page(shown: AdminContext | Application) -> Page:
    line, _, body = get(shown)
    assert line == "200 OK"
    return Page(body)
