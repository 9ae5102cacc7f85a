"""`/-/ruffle`: what a page has to tell Ruffle, for the host that its content connects to: query, entries, warnings."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flashpol.admin.context import AdminContext
from flashpol.config import ConfigError
from flashpol.gateway.ruffle import Entry, PublicUrl, require_host, routes, script, warn_of_pages
from flashpol.serving.websocket_findings import find

HOST, URL, PAGE = FIELDS = ("host", "url", "page")
# Characters that a query may have in these fields: of a host name, and of a URL.
MAX_HOST, MAX_URL = 253, 2048


@dataclass(frozen=True)
class RuffleResult:
    """The query as it was sent; the entries for it, and why content could not use them, or why there are none."""

    query: Mapping[str, str]
    entries: Sequence[Entry] = ()
    warnings: Sequence[str] = ()
    error: str = ""

    @property
    def script(self) -> str:
        return script(self.entries)

    def as_json(self) -> dict[str, Any]:
        if self.error:
            return {"error": self.error}
        settings = [entry.as_setting for entry in self.entries]
        return {"socketProxy": settings, "script": self.script, "warnings": [*self.warnings]}


def ruffle(query: Mapping[str, str], context: AdminContext) -> RuffleResult:
    """Never raises because of the query."""
    host, url, page = (query.get(field, "") for field in FIELDS)
    if not context.websocket_listeners:
        return RuffleResult(query, error="no listener has websocket: write websocket = true in [[listeners]]")
    if not host:
        return RuffleResult(query, error=f"host is missing: ask with host, and perhaps {URL} and {PAGE}")
    if max(map(len, (host, url, page))) > MAX_URL:
        return RuffleResult(query, error=f"a field has more than {MAX_URL:,} characters")
    policies = {each.listener: each.source for each in context.listeners}
    try:
        require_host(host)
        found = routes(context.websocket_listeners, [host], PublicUrl.parse(url) if url else None)
        warnings = warn_of_pages(found, [page] if page else [], lambda each: policies[each.name or ""], find)
    except ConfigError as error:
        return RuffleResult(query, error=str(error))
    return RuffleResult(query, [route.entry for route in found], warnings)
