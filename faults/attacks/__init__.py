"""The attacks, one file for each kind. `ATTACKS` is all of them, in the order of the table."""

from faults.attack import Attack
from faults.attacks import clients, operators, processes, resources

ATTACKS: tuple[Attack, ...] = tuple(
    attack for module in (clients, resources, processes, operators) for attack in module.group.attacks
)
