"""FP3xx: the `domain` of a grant. Only exact names, `*` and `*.suffix` are valid; each other form has its code.

Unity is not among the clients: it counts `domain="*"` and ignores all other domains (FP702).
"""

import re
from collections.abc import Iterator

from flashpol.policy.lint_document import GrantLine, LintDocument
from flashpol.policy.model import DomainError, DomainPattern, shown
from flashpol.policy.rules.grammar import lacks
from flashpol.policy.rules.registry import ADOBE, ERROR, GOOD, NAMES, WARNING, Finder, Hit, flash_file, grant, rule
from flashpol.policy.xml_errors import CODE_IN_VALUE, explain_value

_GOOD = flash_file(grant(domain="*.example.com"))

# The kind of a domain that DomainPattern refuses is the first whose pattern matches.
_KINDS = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        ("empty", r"\s*\Z"),
        ("name", rf".*(?:{CODE_IN_VALUE})"),
        ("spaces", r"\s[^\s,;]*\s*\Z|[^\s,;]+\s+\Z"),
        ("several", r"[^,;\s]*[,;\s]"),
        ("non-ascii", r".*[^\x00-\x7f]"),
        ("ip-pattern", r"(?=.*[*/-])(?=.*[0-9])[0-9*]+(\.[0-9*]+)+([/-][0-9./]*)?\Z"),
        (
            "no-host",
            r"(?i)(?:file|app|app-storage|about|data|blob|javascript):|[a-z]:?[\\/]|[a-z]+:(?:/{0,2}\Z|///|//[:?#])|:[0-9*]*\Z|[/\\.]+\Z",
        ),
        ("leading-dot", r"\.[\w-]+(?:\.[\w-]+)*\Z"),
        ("url", r".*/|(?i:https?):"),
        ("ipv6", r"\[|(.*:){2}"),
        ("port", r".*:"),
        ("wildcard", r"(\*\.)?.*\*|\*\.?\Z"),
        ("address", r"[0-9.]*\.?[0-9]+\Z"),
        ("name", ""),
    )
)


def kind_of(domain: str) -> str:
    """Return why no client can match `domain`, or an empty text if some can."""
    try:
        DomainPattern.parse(domain)
    except DomainError:
        return next(kind for kind, pattern in _KINDS if pattern.match(domain))
    return ""


def _bad_domains(document: LintDocument) -> list[tuple[GrantLine, str]]:
    return [
        (line, kind_of(line.domain_text))
        for line in document.grants
        if line.domain is None and "domain" in line.element.attributes and not line.unreadable
    ]


def _of_kind(kind: str) -> Finder:
    def find(document: LintDocument) -> Iterator[Hit]:
        for line, found in document.once(_bad_domains):
            if found == kind:
                text = line.domain_text
                name = re.sub(r"\A(?:[a-z]*:?/+|https?:)|[/\s?#].*|:[0-9*]*\Z", "", text.strip(), flags=re.I)
                name = re.sub(r":[0-9*]*\Z", "", name).rpartition("@")[2]
                if kind == "url" and kind_of(name):
                    name = "www.example.com"  # an example, since what is left of the URL is no host name
                yield Hit(
                    line.domain_place,
                    domain=shown(text),
                    name=shown(name),
                    trimmed=shown(text.strip()),
                    wildcard=shown("*" + text),
                    debris=explain_value(text),
                )

    return find


@rule(
    "FP301", ERROR, "missing-domain",
    wrong="the grant names no domain", instead='write domain="*.example.com", or "*" for every site',
    clients=ADOBE, bad=flash_file('<allow-access-from to-ports="1935"/>'), good=GOOD,
)  # fmt: skip
def missing_domain(document: LintDocument) -> Iterator[Hit]:
    for line in document.grants:
        if lacks(line.element, "domain"):
            yield Hit(line.element.location)


rule(
    "FP302", ERROR, "empty-domain",
    wrong="the domain is empty", instead='write a host name, "*.example.com", or "*" for every site',
    clients=ADOBE, bad=flash_file(grant(domain="")), good=GOOD,
)(_of_kind("empty"))  # fmt: skip

rule(
    "FP303", ERROR, "ip-pattern",
    wrong="the domain {domain} is a pattern of IP addresses, which no client supports",
    instead='write each address in full, or the host names that the content is loaded from, or "*"',
    clients=NAMES, bad=flash_file(grant(domain="192.168.1.*")), good=flash_file(grant(domain="192.168.1.20")),
)(_of_kind("ip-pattern"))  # fmt: skip

rule(
    "FP304", ERROR, "misplaced-wildcard",
    wrong="the domain {domain} has a wildcard in a place that no client supports",
    instead='write "*" alone, or "*." before a whole name, as in "*.example.com"',
    clients=NAMES, bad=flash_file(grant(domain="www.ex*.com")), good=_GOOD,
)(_of_kind("wildcard"))  # fmt: skip

rule(
    "FP305", ERROR, "url-as-domain",
    wrong="the domain {domain} is a URL", instead="write only its host name: {name}",
    clients=NAMES, bad=flash_file(grant(domain="http://www.example.com/game.swf")),
    good=flash_file(grant(domain="www.example.com")),
)(_of_kind("url"))  # fmt: skip

rule(
    "FP314", ERROR, "no-host-in-domain",
    wrong="the domain {domain} has no host name",
    instead='write the host name of a site; content without one, such as a file, is matched only by "*"',
    clients=NAMES, bad=flash_file(grant(domain="file:///games/")), good=_GOOD,
)(_of_kind("no-host"))  # fmt: skip

rule(
    "FP306", ERROR, "port-in-domain",
    wrong="the domain {domain} contains a port",
    instead="write {name}: ports of sockets belong in to-ports, and the port of the web page does not matter",
    clients=NAMES, bad=flash_file(grant(domain="www.example.com:8080")),
    good=flash_file(grant(domain="www.example.com")),
)(_of_kind("port"))  # fmt: skip

rule(
    "FP307", ERROR, "ipv6-domain",
    wrong="the domain {domain} is an IPv6 address: no source says that a client compares them",
    instead="write the host name that the content is loaded from",
    clients=NAMES, bad=flash_file(grant(domain="2001:db8::1")), good=_GOOD,
)(_of_kind("ipv6"))  # fmt: skip

rule(
    "FP308", ERROR, "spaces-in-domain",
    wrong="the domain {domain} has spaces around it", instead="write {trimmed}",
    clients=NAMES, bad=flash_file(grant(domain=" www.example.com")), good=flash_file(grant(domain="www.example.com")),
)(_of_kind("spaces"))  # fmt: skip

rule(
    "FP309", ERROR, "several-domains",
    wrong="{domain} names several domains", instead="write one allow-access-from for each",
    clients=NAMES, bad=flash_file(grant(domain="a.example,b.example")),
    good=flash_file(grant(domain="a.example"), grant(domain="b.example")),
)(_of_kind("several"))  # fmt: skip

rule(
    "FP310", ERROR, "non-ascii-domain",
    wrong="the domain {domain} has non-ASCII characters", instead='write the "xn--" form of an international name',
    clients=NAMES, bad=flash_file(grant(domain="b\u00fccher.example")),
    good=flash_file(grant(domain="xn--bcher-kva.example")),
)(_of_kind("non-ascii"))  # fmt: skip

rule(
    "FP311", ERROR, "bad-address",
    wrong="the domain {domain} is not an IPv4 address", instead='write four numbers up to 255, as in "192.0.2.1"',
    clients=NAMES, bad=flash_file(grant(domain="192.0.2.256")), good=flash_file(grant(domain="192.0.2.25")),
)(_of_kind("address"))  # fmt: skip

rule(
    "FP312", ERROR, "bad-name",
    wrong="the domain {domain} is not a host name{debris}", instead='write a name such as "example.com"',
    clients=NAMES, bad=flash_file(grant(domain="www..example.com")), good=flash_file(grant(domain="www.example.com")),
)(_of_kind("name"))  # fmt: skip


rule(
    "FP315", ERROR, "leading-dot",
    wrong="the domain {domain} begins with a dot", instead="write {wildcard} for the domain and all names below it",
    clients=NAMES, bad=flash_file(grant(domain=".example.com")), good=_GOOD,
)(_of_kind("leading-dot"))  # fmt: skip


@rule(
    "FP313", WARNING, "names-and-addresses",
    wrong="the address {address}, next to host names, allows only content that was loaded by that address, not by name",
    instead="write the host name of the URL that people open; no client looks up one for the other",
    clients=NAMES, bad=flash_file(grant(domain="www.example.com"), grant(domain="192.0.2.25")),
    good=flash_file(grant(domain="www.example.com"), grant(domain="static.example.com")),
)  # fmt: skip
def names_and_addresses(document: LintDocument) -> Iterator[Hit]:
    hosts = [(line, line.domain.host) for line in document.grants if line.domain is not None and line.domain.host]
    addresses = [(line, host) for line, host in hosts if host.rpartition(".")[2].isdigit()]
    if len(addresses) < len(hosts):
        for line, host in addresses:
            yield Hit(line.domain_place, address=host)
