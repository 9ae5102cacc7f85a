"""The fault suite measures what good clients notice of attacks and accidents: ``python -m faults [ATTACK …]``.

Each attack has a server of its own, in a network namespace of its own where that is possible. Good clients of several
kinds, at several places, send it requests at a steady rate throughout, whatever happens to earlier ones, and compare
each reply byte for byte. The suite compares their p99 during the attack with their p99 before it, and measures how long
they feel it afterwards. In the end the server's own account must be complete: every connection that it accepted ended
in exactly one way.

- ``server.py``    a server under attack, and its processes    ``clients.py``   run good and bad clients
- ``shared.py``    one with shared ports and applications      ``places.py``    kinds of good clients, and where
- ``attack.py``    what an attack is, and one run of it        ``attacks/``     the attacks, one file for each kind
- ``network.py``   a firewall, few local ports                 ``kernel.py``    what the kernel still holds
- ``measure.py``   measure one attack                          ``report.py``    verdicts and the table
- ``native/``      good clients, applications, a clock (C)     ``build.py``     compiles them
- ``soak.py``      mixed traffic for minutes: memory, descriptors and counters, ``python -m faults.soak``

The bad clients are a mode of the bench suite's load generator. They run at the lowest priority and the good ones at the
highest: in reality both have machines of their own, and only what they send reaches the server's machine.
"""

from bench import BenchError


class FaultsError(BenchError):
    """The run has no meaningful result; the message says why."""
