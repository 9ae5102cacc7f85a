"""The attacks, one file for each kind. `ATTACKS` is all of them, in the order of the table."""

from faults.attack import Attack
from faults.attacks import (
    addresses,
    clients,
    handshakes,
    limits,
    operators,
    processes,
    replies,
    resources,
    rtmpt,
    secured,
    silence,
    upstreams,
    websocket,
)

ATTACKS: tuple[Attack, ...] = tuple(
    attack
    for module in (
        clients,
        resources,
        processes,
        operators,
        silence,
        limits,
        addresses,
        replies,
        upstreams,
        handshakes,
        secured,
        websocket,
        rtmpt,
    )
    for attack in module.group.attacks
)
