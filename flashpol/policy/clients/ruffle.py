"""Ruffle on a web page, through a WebSocket of flashpol.

Ruffle asks for no policy. Its sockets are WebSockets, into which the browser writes the Origin of the page, so flashpol
asks the policy in its place, as Flash Player would for content from there:

- The page decides, not the SWF: a page of one site that shows an SWF of another one counts as its own site.
- `secure="true"` is for pages that came by https.
- The Origin of a local file, and of a sandboxed frame, is `null`. Those and origins of other schemes, such as
  `chrome-extension:`, count as content from nowhere, which only `domain="*"` matches: no site served them, and the
  program that shows them chooses the name.

A listener may have another rule than its policy (`origins`); `flashpol.gateway.origins` has all of them, and
`flashpol.gateway.decisions` asks them.
"""

from dataclasses import replace

from flashpol.policy.clients.flash import compile_flash
from flashpol.policy.clients.query import Content, Decision, Document, Evaluator, Query

CLIENT = "ruffle"
NULL = "null"
# What Chrome writes to its console. Ruffle reports a connection to the content, and then its end.
_WORDS = (
    "WebSocket connection to 'wss://SERVER/' failed: Error during WebSocket handshake: Unexpected response code: %d"
)
_SITES = ("http", "https", "")  # "": only a domain was given


def compile_ruffle(document: Document) -> Evaluator:
    flash = compile_flash(document)

    def decide(query: Query) -> Decision:
        content = query.content
        if content.scheme not in _SITES or content.text == NULL:
            content = nowhere(content)
        # `local` leaves out a warning of Flash Player about `secure`, which here means what it says.
        found = flash(Query(content, query.port, query.served_from, local=True))
        words = "" if found.allowed else refused_words()
        return Decision(CLIENT, found.allowed, found.reason, found.line, found.column, words)

    return decide


def refused_words(status: int = 403) -> str:
    return _WORDS % status


def nowhere(content: Content) -> Content:
    """The same without a host, for `*` alone."""
    return replace(content, scheme=content.scheme or NULL, host="", keys=("*",))
