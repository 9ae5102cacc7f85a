"""Lists of networks, compiled into the tables that the fast path searches.

The longest prefix wins: of all networks that contain an address, the smallest decides. An address in none of them is
allowed, unless the listener lists the allowed networks (`allow_networks`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from flashpol._fastpath import Networks
from flashpol.config import ConnectionLimits, Listener, Network

_BITS = 128  # of an address in `Networks`; IPv4 in the upper 32

# Whether the lowest address is allowed, and the addresses at which that changes.
Boundaries = tuple[bool, list[int]]
# Of IPv4 and of IPv6.
Tables = tuple[Boundaries, Boundaries]


@dataclass(frozen=True)
class Access:
    """The lists of one listener's Acceptor: `networks` may connect (None: all), `proxies` may send a PROXY header
    (None: there is none). A process can send it to another: only the tables are pickled."""

    tables: Tables | None = field(default=None, repr=False)
    proxy_tables: Tables | None = field(default=None, repr=False)
    networks: Networks | None = field(init=False, default=None, compare=False)
    proxies: Networks | None = field(init=False, default=None, compare=False)

    def __post_init__(self) -> None:
        for name, tables in (("networks", self.tables), ("proxies", self.proxy_tables)):
            object.__setattr__(self, name, Networks(*tables) if tables else None)

    def __reduce__(self) -> tuple[type["Access"], tuple[Tables | None, Tables | None]]:
        return Access, (self.tables, self.proxy_tables)

    @classmethod
    def of(cls, listener: Listener) -> "Access":
        allow, deny = listener.allow_networks, listener.deny_networks
        return cls(
            make_tables(allow, deny) if allow or deny else None,
            make_tables(listener.proxy_networks) if listener.proxy_protocol else None,
        )


def compile_networks(allow: Iterable[Network], deny: Iterable[Network] = ()) -> Networks:
    """Both lists as one table."""
    return Networks(*make_tables(allow, deny))


def exempt_from_limits(limits: ConnectionLimits) -> Networks | None:
    """The addresses that limits by address do not hold for; None: there are none."""
    return compile_networks(limits.exempt_networks) if limits.exempt_networks else None


def make_tables(allow: Iterable[Network], deny: Iterable[Network] = ()) -> Tables:
    """What `Networks` is made of. A network in both lists is denied; the configuration refuses such."""
    rules = dict.fromkeys(allow, True)
    otherwise = not rules
    rules |= dict.fromkeys(deny, False)

    def of(version: int) -> Boundaries:
        own = {network: allowed for network, allowed in rules.items() if network.version == version}
        return _boundaries(list(_changes(own, otherwise)), otherwise)

    return of(4), of(6)


def _boundaries(changes: list[tuple[int, bool]], otherwise: bool) -> Boundaries:
    """Without the changes that change nothing."""
    first = previous = changes[0][1] if changes and changes[0][0] == 0 else otherwise
    boundaries = []
    for address, verdict in changes:
        if verdict != previous:
            boundaries.append(address)
        previous = verdict
    return first, boundaries


def _changes(rules: dict[Network, bool], otherwise: bool) -> Iterator[tuple[int, bool]]:
    """(address, the verdict from there on), ascending, each address once.

    Two networks are disjoint or one contains the other, so the networks around an address are a stack.
    """
    verdicts: dict[int, bool] = {}
    around: list[tuple[int, bool]] = []  # the end of a network, and the verdict after it
    verdict = otherwise

    def close(until: int) -> None:
        nonlocal verdict
        while around and around[-1][0] <= until:
            end, verdict = around.pop()
            verdicts[end] = verdict

    for network in sorted(rules, key=lambda network: (int(network.network_address), network.prefixlen)):
        start = int(network.network_address) << (_BITS - network.max_prefixlen)
        close(start)
        around.append((start + (1 << (_BITS - network.prefixlen)), verdict))
        verdicts[start] = verdict = rules[network]
    close(1 << _BITS)
    verdicts.pop(1 << _BITS, None)
    yield from verdicts.items()
