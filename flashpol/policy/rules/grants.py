"""FP6xx: redundant grants, and grants that allow more than most applications need."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator

from flashpol.policy.lint_document import GrantLine, LintDocument
from flashpol.policy.model import DomainPattern, PortSet
from flashpol.policy.rules.registry import ADOBE, NAMES, NOTE, WARNING, Hit, control, flash_file, grant, rule

# Services that attackers look for and that often trust their network. A page that may open sockets can reach them.
_SERVICES = {
    21: "FTP", 22: "SSH", 23: "Telnet", 25: "SMTP", 110: "POP3", 111: "RPC", 135: "RPC", 139: "SMB", 143: "IMAP",
    389: "LDAP", 445: "SMB", 465: "SMTP", 587: "SMTP", 636: "LDAP", 873: "rsync", 993: "IMAP", 995: "POP3",
    1433: "SQL Server", 1521: "Oracle", 2049: "NFS", 2375: "Docker", 3306: "MySQL", 3389: "RDP", 5432: "PostgreSQL",
    5900: "VNC", 5984: "CouchDB", 6379: "Redis", 9200: "Elasticsearch", 11211: "memcached", 27017: "MongoDB",
}  # fmt: skip
_SORTED = sorted(_SERVICES)
_NAMED = 3  # services that a message names

# A comparison costs about a microsecond. Real files need a few for each grant; a file that needs more than this is
# built to be slow, and some covered grants are then not reported.
_COMPARISONS = 200_000


def _readable(document: LintDocument) -> Iterator[tuple[GrantLine, DomainPattern, PortSet]]:
    for line in document.grants:
        if line.domain is not None and line.ports is not None:
            yield line, line.domain, line.ports


@rule(
    "FP601", WARNING, "duplicate-grant",
    wrong="this repeats the grant at line {line}", instead="remove one of the two",
    clients=ADOBE, bad=flash_file(grant(), grant()), good=flash_file(grant(), grant("843")),
)  # fmt: skip
def duplicate_grant(document: LintDocument) -> Iterator[Hit]:
    first: dict[tuple[DomainPattern, PortSet, bool], GrantLine] = {}
    for line, domain, ports in _readable(document):
        before = first.setdefault((domain, ports, line.secure), line)
        if before is not line:
            yield Hit(line.element.location, line=before.element.location.line)


def _covered(document: LintDocument) -> list[tuple[GrantLine, GrantLine]]:
    """Return each grant, except duplicates, that another grant covers completely, with that other grant.

    This is Flash's reading: Lightspark may need both because of ranges, and Unity because of their last ports.

    In the order by first port and then by width, a grant that covers another comes before it and is still open.
    """
    first: dict[tuple[DomainPattern, PortSet, bool], GrantLine] = {}
    for line, domain, ports in _readable(document):
        first.setdefault((domain, ports, line.secure), line)
    ordered = sorted(
        first.items(),
        key=lambda item: (
            item[0][1].ranges[0][0],
            -item[0][1].ranges[-1][1],
            -sum(high - low for low, high in item[0][1].ranges),
            item[0][2],
            item[0][0].host.count(".") if item[0][0].host else -1,
            not item[0][0].wildcard,
        ),
    )
    found = []
    open_now: dict[str, list[tuple[PortSet, bool, GrantLine]]] = {}
    left = _COMPARISONS
    for (domain, ports, secure), line in ordered:
        low, high = ports.ranges[0][0], ports.ranges[-1][1]
        for wider in _wider(domain):
            candidates = open_now.get(wider)
            if not candidates or left <= 0:
                continue
            left -= len(candidates)
            candidates[:] = [one for one in candidates if one[0].ranges[-1][1] >= low]
            cover = next(
                (
                    other
                    for theirs, theirs_secure, other in candidates
                    if secure >= theirs_secure and theirs.ranges[-1][1] >= high and _within(ports, theirs)
                ),
                None,
            )
            if cover is not None:
                found.append((line, cover))
                break
        open_now.setdefault(str(domain), []).append((ports, secure, line))
    return found


def _wider(domain: DomainPattern) -> Iterator[str]:
    """Yield every pattern, as text, that matches all hosts that `domain` matches."""
    if domain.host:
        yield str(domain)
        suffix = domain.host
        if not domain.wildcard and not suffix.rpartition(".")[2].isdigit():
            yield f"*.{suffix}"
        while "." in suffix:
            suffix = suffix.partition(".")[2]
            yield f"*.{suffix}"
    yield "*"


def _within(ports: PortSet, others: PortSet) -> bool:
    if others.any:
        return True
    return all(any(a <= low and high <= b for a, b in others.ranges) for low, high in ports.ranges)


@rule(
    "FP602", NOTE, "covered-grant",
    wrong="the grant at line {line} already allows everything that this one does",
    instead="remove this grant, or narrow the other",
    clients=("flash",), bad=flash_file(grant("843,1935"), grant("1935", "www.example.com")),
    good=flash_file(grant("843"), grant("1935", "www.example.com")),
)  # fmt: skip
def covered_grant(document: LintDocument) -> Iterator[Hit]:
    for line, cover in document.once(_covered):
        if not line.secure or cover.secure:
            yield Hit(line.element.location, line=cover.element.location.line)


@rule(
    "FP603", WARNING, "secure-defeated",
    wrong="the grant at line {line} allows the same without HTTPS",
    instead='remove one of the two: the one with secure="true" has no effect',
    clients=("flash",),
    bad=flash_file(grant(), grant(more=' secure="true"')), good=flash_file(grant(), grant("843")),
)  # fmt: skip
def secure_defeated(document: LintDocument) -> Iterator[Hit]:
    for line, cover in document.once(_defeated):
        yield Hit(line.element.location, line=cover.element.location.line)


def _defeated(document: LintDocument) -> list[tuple[GrantLine, GrantLine]]:
    if not any(line.secure for line in document.grants):
        return []
    return [(line, cover) for line, cover in document.once(_covered) if line.secure and not cover.secure]


@rule(
    "FP604", WARNING, "every-site-every-port",
    wrong="content from anywhere may connect to every port of this host",
    instead="write the ports that the application uses, as in to-ports=\"1935\"",
    clients=ADOBE, bad=flash_file(grant("*")), good=flash_file(grant("1935")),
)  # fmt: skip
def every_site_every_port(document: LintDocument) -> Iterator[Hit]:
    for line, domain, ports in _readable(document):
        if not domain.host and ports.ranges == ((1, 65535),):
            yield Hit(line.element.location)


@rule(
    "FP605", WARNING, "top-level-wildcard",
    wrong="{domain} matches every site under a top-level domain",
    instead='write a domain of yours, as in "*.example.com", or "*" if you mean every site',
    clients=NAMES, bad=flash_file(grant(domain="*.com")), good=flash_file(grant(domain="*.example.com")),
)  # fmt: skip
def top_level_wildcard(document: LintDocument) -> Iterator[Hit]:
    lines = document.grants if document.by_url else [line for line, _, _ in _readable(document)]
    for line in lines:
        domain = line.domain
        if domain is not None and domain.wildcard and domain.host and "." not in domain.host:
            yield Hit(line.domain_place, domain=str(domain))


@rule(
    "FP606", WARNING, "service-ports",
    wrong="the ports include {services}",
    instead="remove them, unless the application connects to those services themselves",
    clients=ADOBE, bad=flash_file(grant("22,1935")), good=flash_file(grant("1935")),
)  # fmt: skip
def service_ports(document: LintDocument) -> Iterator[Hit]:
    for line, domain, ports in _readable(document):
        if ports.any or (not domain.host and ports.ranges == ((1, 65535),)):
            continue  # FP604 reports this, or "*" is for a domain that is trusted
        found = [
            f"{port} ({_SERVICES[port]})"
            for low, high in ports.ranges
            for port in _SORTED[bisect_left(_SORTED, low) : bisect_right(_SORTED, high)]
        ]
        if found:
            more = f" and {len(found) - _NAMED} more" if len(found) > _NAMED else ""
            yield Hit(line.ports_place, services=", ".join(found[:_NAMED]) + more)


@rule(
    "FP607", NOTE, "allows-nothing",
    wrong="the policy grants nothing: no content may connect",
    instead="write allow-access-from, unless that is what you want",
    clients=ADOBE, bad=flash_file(control("master-only")), good=flash_file(control("all")),
)  # fmt: skip
def allows_nothing(document: LintDocument) -> Iterator[Hit]:
    # "all" without grants leaves the decision to policies on other ports, and "none" states the intention.
    # Text in place of grants is markup that was escaped or stripped, which FP112 reports.
    if document.root is not None and not document.root.children and not document.stray:
        yield Hit(document.root.location)
    elif not document.grants and not document.stray and document.meta == "master-only":
        yield Hit(document.controls[0].location)


@rule(
    "FP608", WARNING, "secure-true",
    wrong='secure="true" allows only content loaded over HTTPS, and Flash warns about it for content of other hosts',
    instead="remove it, unless the content comes over HTTPS from the host of this server",
    clients=NAMES, bad=flash_file(grant(more=' secure="true"')), good=flash_file(grant()),
)  # fmt: skip
def secure_true(document: LintDocument) -> Iterator[Hit]:
    defeated = {line.element.location for line, _ in document.once(_defeated)}
    for line in document.grants:
        if line.secure and line.element.location not in defeated:
            yield Hit(line.element.value_location("secure"))
