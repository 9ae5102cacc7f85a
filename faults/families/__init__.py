"""The attacks, a file a kind. `ATTACKS` is all of them, in the order of the table."""

from faults.families import clients, operators, processes, resources
from faults.scene import Attack

ATTACKS: tuple[Attack, ...] = tuple(
    attack for module in (clients, resources, processes, operators) for attack in module.family.attacks
)
