"""Merges fragments into one policy: departments write their own files, and one port 843 serves them all.

The law: for every client, content of a host, loaded with HTTPS or without, may connect to a port by the merge exactly
if it may by some fragment, each as `flash.render` writes it. `allows` answers that for one policy and Flash, which
reads ranges as they are meant; the other clients read them as in `_READINGS`. The rest follows:

    the grants of one (domain, secure)    become the fewest grants that mean the same to all clients; mostly one
    a grant                               is left out if other grants for its content (of a wider domain, or without
                                          HTTPS) contain all its ports, as each client reads them
    site-control                          counts for all fragments or for none, so the values must agree; "none"
                                          forbids every grant, so every fragment with grants must have it

So 8000-8049 and 8050-8100 remain two grants: Lightspark would not read 8050 in 8000-8100. The law has limits:

    size            Lightspark may deny a reply of more than one segment, Unity one of more than 5,000 bytes, and from
                    4,095 bytes on ports are written as ranges. Many fragments, or comments on them, can need that.
                    Conversely, clients may read a fragment in the merge that was too large by itself
    site-control    Lightspark rejects a file with site-control unless port 843 serves it, and one fragment suffices
    as written      a run of more than 16 ports counts as a range even if a fragment lists it singly, and a shorter
                    run as listed even if it is written as a range: `render` would write the fragment so

The order and the names of the fragments change only comments: the grants are sorted.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import Self

from flashpol.policy.flash import SILVERLIGHT_POLICY, parse, render
from flashpol.policy.lint import explained
from flashpol.policy.model import PORTS_SINGLY, DomainPattern, Grant, Location, MetaPolicy, Policy, PolicyError, PortSet

_ANYBODY = DomainPattern("", wildcard=True)
_Key = tuple[DomainPattern, bool]  # domain and secure: grants with the same key become one
_Range = tuple[int, int]
_Reading = Callable[[int, int], _Range]


def _as_meant(low: int, high: int) -> _Range:
    """Flash."""
    return low, high


def _first_port(low: int, high: int) -> _Range:
    """Lightspark."""
    return low, low


def _without_end(low: int, high: int) -> _Range:
    """Unity, which reads single ports. It counts only grants for "*"; the merge may treat all domains alike."""
    return low, max(low, high - 1)


# How clients read an item of a port list; sources in `clients`. All of them know "*". Silverlight reads no such list.
_READINGS: tuple[_Reading, ...] = (_as_meant, _first_port, _without_end)


class MergeError(PolicyError):
    """The fragments make no policy: one is not a policy, or two contradict each other. Places: FILE:LINE:COLUMN."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """A policy and its name in comments and errors, such as the file's."""

    name: str
    policy: Policy

    @classmethod
    def read(cls, name: str, data: bytes) -> Self:
        """Read a file of the Flash dialect. Raises MergeError."""
        try:
            return cls(name, parse(data))
        except PolicyError as refused:
            error = explained(refused, data)
            if error.wrong == SILVERLIGHT_POLICY:
                error.instead = "only Flash policies are merged; write one Silverlight policy file"
            raise MergeError(f"{_place(name, error.location)}: {error.wrong}", error.instead) from None

    def place(self, location: Location | None) -> str:
        """Return `FILE:LINE:COLUMN`, on one line; without the numbers for a policy that was not read from a text."""
        return _place(self.name, location)


def allows(policy: Policy, host: str, port: int, *, https: bool) -> bool:
    """Return whether content of `host`, loaded with HTTPS or without, may connect to `port` by this policy alone.

    Adobe's rules apply, for a policy that counts, as port 843's does; the port that serves it plays no part.
    """
    return policy.meta is not MetaPolicy.NONE and any(
        grant.domain.matches(host) and port in grant.ports and (https or not grant.secure) for grant in policy.grants
    )


def merge_policies(fragments: Iterable[Fragment]) -> Policy:
    """Unite fragments; without fragments, return an empty policy. Raises MergeError, with both places."""
    return _Merge(fragments).policy


def merge_files(files: Iterable[tuple[str, bytes]], *, provenance: bool = False) -> bytes:
    """Merge files, given as (name, content), into one canonical file, as `flash.render` writes it.

    The same files in any order give the same bytes. With `provenance`, comments name the files that each grant comes
    from, and the grants that it covers. Raises MergeError.
    """
    merge = _Merge(Fragment.read(name, data) for name, data in sorted(files))
    data = render(merge.policy, merge.provenance() if provenance else None)
    try:
        parse(data)
    except PolicyError as error:  # each fragment is within the limits of a file; the merge may not be
        raise MergeError(f"the merge is too large: {error.wrong}", error.instead) from None
    return data


class _Merge:
    """The merge of some fragments, with the sources of each grant."""

    def __init__(self, fragments: Iterable[Fragment]) -> None:
        self._fragments = sorted(fragments, key=lambda fragment: (fragment.name, render(fragment.policy)))
        self._sources: dict[_Key, list[tuple[Fragment, Grant]]] = {}
        for fragment in self._fragments:
            for grant in fragment.policy.grants:
                self._sources.setdefault((grant.domain, grant.secure), []).append((fragment, grant))
        united = {key: _united(grant.ports for _, grant in found) for key, found in self._sources.items()}
        self._read = {key: _readings(sets) for key, sets in united.items()}
        kept: list[Grant] = []
        self._covered: list[Grant] = []
        for key in sorted(united, key=_order):
            for ports in united[key]:
                grant = Grant(key[0], ports, key[1])
                (self._covered if self._is_covered(grant) else kept).append(grant)
        self.policy = Policy(tuple(kept), self._meta())

    def _is_covered(self, grant: Grant) -> bool:
        # All wider grants together, including covered ones: the grants that cover those are wider yet.
        wider = [self._read[other] for other in self._wider((grant.domain, grant.secure))]
        return all(
            _is_within(low, high, [other[client] for other in wider])
            for client, ports in enumerate(_readings([grant.ports]))
            for low, high in ports.ranges
        )

    def _wider(self, key: _Key) -> Iterator[_Key]:
        """Yield the keys of all other grants for all the content that `key` is for."""
        domain, secure = key
        domains = [_ANYBODY, domain]
        labels = domain.host.split(".") if domain.host else []
        domains += [DomainPattern(".".join(labels[at:]), wildcard=True) for at in range(_suffixes(domain, labels))]
        for other in {(each, asks) for each in domains for asks in {False, secure}}:
            if other != key and other in self._sources:
                yield other

    def _meta(self) -> MetaPolicy | None:
        said = [fragment for fragment in self._fragments if fragment.policy.meta]
        if not said:
            return None
        first = said[0]
        for other in said[1:]:
            if other.policy.meta is not first.policy.meta:
                raise MergeError(
                    f"{_meta_place(other)} says {_meta_value(other)}, but {_meta_place(first)} says "
                    f"{_meta_value(first)}",
                    "write the same in both, or remove it from one",
                )
        if first.policy.meta is MetaPolicy.NONE:
            for other in self._fragments:
                if other.policy.grants and not other.policy.meta:
                    raise MergeError(
                        f"{_meta_place(first)} says {_meta_value(first)}, which would forbid the grants of "
                        f"{other.place(other.policy.grants[0].location)}",
                        "remove one of the two",
                    )
        return first.policy.meta

    def provenance(self) -> dict[Grant | MetaPolicy, str]:
        """Return the comments to write before each grant and the meta-policy."""
        comments: dict[Grant | MetaPolicy, str] = {}
        if self.policy.meta:
            comments[self.policy.meta] = _list(
                f.place(f.policy.meta_location) for f in self._fragments if f.policy.meta
            )
        covers: dict[_Key, list[str]] = {}
        for grant in self._covered:
            for other in self._wider((grant.domain, grant.secure)):
                covers.setdefault(other, []).extend(self._places(grant))
        for grant in self.policy.grants:
            key = (grant.domain, grant.secure)
            also = f"; covers {_list(covers[key])}" if key in covers else ""
            comments[grant] = _list(self._places(grant)) + also
        return comments

    def _places(self, grant: Grant) -> list[str]:
        """Return the places in the fragments that `grant` comes from."""
        said = _as_read([grant.ports], _first_port)  # the first port identifies an item: grants of a key share none
        return [
            fragment.place(source.location)
            for fragment, source in self._sources[grant.domain, grant.secure]
            if any(low in said for low, _ in source.ports.items(singly=PORTS_SINGLY))
        ]


def _suffixes(domain: DomainPattern, labels: list[str]) -> int:
    """Return how many names at the end of `domain` can follow `*.`: none for an address."""
    return 0 if labels and labels[-1].isdigit() else len(labels)


def _readings(sets: Sequence[PortSet]) -> list[PortSet]:
    """Return the ports that each client finds in these sets."""
    return [_as_read(sets, reading) for reading in _READINGS]


def _as_read(sets: Sequence[PortSet], reading: _Reading) -> PortSet:
    """Return the ports that one client finds in these sets, as `flash.render` writes them."""
    items = [item for each in sets for item in each.items(singly=PORTS_SINGLY)]
    return PortSet(tuple(reading(*item) for item in items), any=any(each.any for each in sets))


def _united(sets: Iterable[PortSet]) -> list[PortSet]:
    """Return the fewest sets, in order, in which every client finds the same ports as in these."""
    sets = list(sets)
    if any(each.any for each in sets):
        return [PortSet(any=True)]
    # Each client finds in the longer of two items with the same first port all that it finds in the shorter.
    longest: dict[int, int] = {}
    for each in sets:
        for low, high in each.items(singly=PORTS_SINGLY):
            longest[low] = max(high, longest.get(low, low))
    # Items that touch would become one range, so they go into different sets: each time the one that ended first.
    united: list[list[_Range]] = []
    ends: list[tuple[int, int]] = []
    for low, high in _pieces(longest):
        at = heappop(ends)[1] if ends and ends[0][0] + 1 < low else len(united)
        if at == len(united):
            united.append([])
        united[at].append((low, high))
        heappush(ends, (high, at))
    return [PortSet(tuple(ranges)) for ranges in united]


def _pieces(items: dict[int, int]) -> Iterator[_Range]:
    """Yield the items (first port -> last port) in order, with single ports joined to runs that `render` lists."""
    run: list[int] = []
    for low, high in sorted(items.items()):
        if run and (low < high or low != run[-1] + 1 or len(run) == PORTS_SINGLY):
            yield run[0], run[-1]
            run = []
        if low < high:
            yield low, high
        else:
            run.append(low)
    if run:
        yield run[0], run[-1]


def _is_within(low: int, high: int, sets: list[PortSet]) -> bool:
    """Return whether each port from `low` to `high` is in one of the sets. Steps from range to range, not by port."""
    while low <= high:
        end = max((_range_end(ports, low) for ports in sets), default=0)
        if end < low:
            return False
        low = end + 1
    return True


def _range_end(ports: PortSet, port: int) -> int:
    """Return the last port of the last range that begins at or before `port`, 0 if there is none."""
    at = bisect_right(ports.ranges, port, key=lambda each: each[0])
    return ports.ranges[at - 1][1] if at else 0


def _order(key: _Key) -> tuple[list[str], bool, bool]:
    """Sort by the domain's labels from the last, so that related domains are adjacent; the widest first."""
    domain, secure = key
    return domain.host.split(".")[::-1], not domain.wildcard, secure


def _place(name: str, location: Location | None) -> str:
    plain = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in name)
    return f"{plain}:{location.line}:{location.column}" if location else plain


def _meta_place(fragment: Fragment) -> str:
    return f"site-control at {fragment.place(fragment.policy.meta_location)}"


def _meta_value(fragment: Fragment) -> str:
    return f'"{fragment.policy.meta.value}"' if fragment.policy.meta else ""


def _list(places: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(places))
