"""Who may connect: lists of networks made into what the fast path walks.

Longest prefix wins: of all networks that an address is in, the smallest says whether it is allowed. An address in none
is allowed, unless the listener lists who is (`allow_networks`).
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from flashpol._fastpath import Networks
from flashpol.config import Listener, Network

_BITS = 128  # an address as `Networks` has it; IPv4 in the upper 32


@dataclass(frozen=True)
class Access:
    """What a listener's Acceptor is told. None: everybody; no proxies."""

    networks: Networks | None = None
    proxies: Networks | None = None

    @classmethod
    def of(cls, listener: Listener) -> "Access":
        allow, deny = listener.allow_networks, listener.deny_networks
        return cls(
            compile_networks(allow, deny) if allow or deny else None,
            compile_networks(listener.proxy_networks) if listener.proxy_protocol else None,
        )


def compile_networks(allow: Iterable[Network], deny: Iterable[Network] = ()) -> Networks:
    """The two lists as one table. A network that is in both is denied; the configuration refuses such."""
    rules = dict.fromkeys(allow, True)
    otherwise = not rules
    rules |= dict.fromkeys(deny, False)
    four, six = (
        list(_turns({network: verdict for network, verdict in rules.items() if network.version == version}, otherwise))
        for version in (4, 6)
    )
    return Networks(_table(four, otherwise), _table(six, otherwise))


def _table(answers: list[tuple[int, bool]], otherwise: bool) -> tuple[bool, list[int]]:
    """The answer for the lowest address, and the addresses from which on it is another."""
    first = previous = answers[0][1] if answers and answers[0][0] == 0 else otherwise
    turns = []
    for address, answer in answers:
        if answer != previous:
            turns.append(address)
        previous = answer
    return first, turns


def _turns(rules: dict[Network, bool], otherwise: bool) -> Iterator[tuple[int, bool]]:
    """(address, the answer from there on), ascending, each address once.

    Networks are apart or one within the other, so those around an address are a stack.
    """
    answers: dict[int, bool] = {}
    around: list[tuple[int, bool]] = []  # the end of a network, and the answer behind it
    answer = otherwise

    def leave(until: int) -> None:
        nonlocal answer
        while around and around[-1][0] <= until:
            end, answer = around.pop()
            answers[end] = answer

    for network in sorted(rules, key=lambda network: (int(network.network_address), network.prefixlen)):
        start = int(network.network_address) << (_BITS - network.max_prefixlen)
        leave(start)
        around.append((start + (1 << (_BITS - network.prefixlen)), answer))
        answers[start] = answer = rules[network]
    leave(1 << _BITS)
    answers.pop(1 << _BITS, None)
    yield from answers.items()
