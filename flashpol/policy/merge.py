"""Many fragments into one policy: departments that know nothing of each other, and one port 843.

The law: content of a host, loaded with HTTPS or without, may connect to a port by the merge exactly if it may by some
fragment. Here `allows` is that question for one policy; the rest follows from it:

    the grants of one (domain, secure)    are one grant, for all their ports
    a grant                               is left out if others that mean its content too hold all its ports:
                                          those of a wider domain, and those that do not ask for HTTPS
    site-control                          counts for all fragments or for none, so what fragments say must agree;
                                          "none" forbids every grant, so all that grant anything must say it

The order and the names of the fragments change nothing but comments: the grants are sorted.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from .flash import parse, render
from .model import DomainPattern, Grant, Location, MetaPolicy, Policy, PolicyError, PortSet

_ANYBODY = DomainPattern("", wildcard=True)
_Key = tuple[DomainPattern, bool]  # of the grants that become one: domain and secure


class MergeError(PolicyError):
    """Fragments that cannot be one policy: one is none, or two contradict each other. Places are FILE:LINE:COLUMN."""


@dataclass(frozen=True, slots=True)
class Fragment:
    """A policy and what to call it in comments and errors, such as its file's name."""

    name: str
    policy: Policy

    @classmethod
    def read(cls, name: str, data: bytes) -> Fragment:
        """From a file of the Flash dialect. Raises MergeError."""
        try:
            return cls(name, parse(data))
        except PolicyError as error:
            raise MergeError(f"{_place(name, error.location)}: {error.wrong}", error.instead) from None

    def place(self, location: Location | None) -> str:
        """Return `FILE:LINE:COLUMN`, on one line; without the numbers for what was not read from a text."""
        return _place(self.name, location)


def allows(policy: Policy, host: str, port: int, *, https: bool) -> bool:
    """Say whether content of `host`, loaded with HTTPS or without, may connect to `port` by this policy alone.

    Adobe's rules for a policy that counts, as that of port 843 does; where it was served from is not looked at.
    """
    return policy.meta is not MetaPolicy.NONE and any(
        grant.domain.matches(host) and port in grant.ports and (https or not grant.secure) for grant in policy.grants
    )


def merge_policies(fragments: Iterable[Fragment]) -> Policy:
    """Unite fragments, none of them for an empty policy. Raises MergeError, with both places."""
    return _Merge(fragments).policy


def merge_files(files: Iterable[tuple[str, bytes]], *, provenance: bool = False) -> bytes:
    """Merge files, as (name, content), into a file: canonical, as `flash.render` writes it.

    The same files in any order give the same bytes. `provenance`: comments say where each grant comes from, and
    which it covers. Raises MergeError.
    """
    merge = _Merge(Fragment.read(name, data) for name, data in sorted(files))
    data = render(merge.policy, merge.provenance() if provenance else None)
    try:
        parse(data)
    except PolicyError as error:  # the limits of a file: each fragment is within them, all together may not be
        raise MergeError(f"the merge is too large: {error.wrong}", error.instead) from None
    return data


class _Merge:
    """The merge of some fragments, and where everything in it comes from."""

    def __init__(self, fragments: Iterable[Fragment]) -> None:
        self._fragments = sorted(fragments, key=lambda fragment: (fragment.name, render(fragment.policy)))
        self._sources: dict[_Key, list[tuple[Fragment, Grant]]] = {}
        for fragment in self._fragments:
            for grant in fragment.policy.grants:
                self._sources.setdefault((grant.domain, grant.secure), []).append((fragment, grant))
        self._ports = {key: _union(grant.ports for _, grant in found) for key, found in self._sources.items()}
        self._covered = {key for key in self._ports if self._is_covered(key)}
        kept = sorted(self._ports.keys() - self._covered, key=_order)
        self.policy = Policy(tuple(Grant(key[0], self._ports[key], key[1]) for key in kept), self._meta())

    def _is_covered(self, key: _Key) -> bool:
        # All wider grants together, also those that are covered themselves: what covers them is wider still.
        wider = [self._ports[other] for other in self._wider(key)]
        ports = self._ports[key]
        if ports.any:  # equal to 1-65535 by the law, but clients that misread ranges know "*"
            return any(other.any for other in wider)
        return all(_is_within(low, high, wider) for low, high in ports.ranges)

    def _wider(self, key: _Key) -> Iterator[_Key]:
        """The grants there are, other than `key`, for all the content that `key` is for."""
        domain, secure = key
        domains = [_ANYBODY, domain]
        labels = domain.host.split(".") if domain.host else []
        domains += [DomainPattern(".".join(labels[at:]), wildcard=True) for at in range(_suffixes(domain, labels))]
        for other in {(each, asks) for each in domains for asks in {False, secure}}:
            if other != key and other in self._ports:
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
                    "say the same in both, or leave it out of one",
                )
        if first.policy.meta is MetaPolicy.NONE:
            for other in self._fragments:
                if other.policy.grants and not other.policy.meta:
                    raise MergeError(
                        f"{_meta_place(first)} says {_meta_value(first)}, which would forbid the grants of "
                        f"{other.place(other.policy.grants[0].location)}",
                        "leave one of them out",
                    )
        return first.policy.meta

    def provenance(self) -> dict[Grant | MetaPolicy, str]:
        """What to write in a comment before each grant and the meta-policy."""
        comments: dict[Grant | MetaPolicy, str] = {}
        if self.policy.meta:
            comments[self.policy.meta] = _list(
                f.place(f.policy.meta_location) for f in self._fragments if f.policy.meta
            )
        covers: dict[_Key, list[str]] = {}
        for key in sorted(self._covered, key=_order):
            for other in self._wider(key):
                covers.setdefault(other, []).extend(self._places(key))
        for grant in self.policy.grants:
            key = (grant.domain, grant.secure)
            also = f"; covers {_list(covers[key])}" if key in covers else ""
            comments[grant] = _list(self._places(key)) + also
        return comments

    def _places(self, key: _Key) -> list[str]:
        return [fragment.place(grant.location) for fragment, grant in self._sources[key]]


def _suffixes(domain: DomainPattern, labels: list[str]) -> int:
    """How many of the names that `domain` ends in can stand behind `*.`: none of an address's can."""
    return 0 if labels and labels[-1].isdigit() else len(labels)


def _union(sets: Iterable[PortSet]) -> PortSet:
    sets = list(sets)
    return PortSet(tuple(ports for each in sets for ports in each.ranges), any=any(each.any for each in sets))


def _is_within(low: int, high: int, sets: list[PortSet]) -> bool:
    """Whether each port from `low` to `high` is in one of the sets. From range to range: they may hold thousands."""
    while low <= high:
        end = max((_range_end(ports, low) for ports in sets), default=0)
        if end < low:
            return False
        low = end + 1
    return True


def _range_end(ports: PortSet, port: int) -> int:
    """The last port of the last range that begins at `port` or before, 0 if there is none."""
    at = bisect_right(ports.ranges, port, key=lambda each: each[0])
    return ports.ranges[at - 1][1] if at else 0


def _order(key: _Key) -> tuple[list[str], bool, bool]:
    """By domain from its end, so that what belongs together stands together; the widest first."""
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
