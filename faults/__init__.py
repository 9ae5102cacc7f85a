"""What well-behaved clients notice while others do their worst: ``python -m faults [ATTACK …]``.

Each attack has a server of its own, in a network of its own where we may make one. Good clients ask it at a steady rate
from first to last, whatever becomes of those before them; each reply is compared byte for byte. Their p99 before the
attack is what their p99 during it is compared with; after it we see how long they feel it. In the end the server's own
account must be complete: every connection that it accepted ended in exactly one way.

- ``native/``      good and bad clients (C), a clock that jumps    ``build.py``      compiles them when needed
- ``server.py``    a server under attack, and its processes        ``clients.py``    runs good and bad clients
- ``scene.py``     what an attack has to work with                 ``families/``     the attacks, a file a kind
- ``network.py``   a firewall, for peers that vanish
- ``measure.py``   one attack, measured                            ``report.py``     verdicts and the table
- ``soak.py``      mixed traffic for minutes: memory, descriptors and counters, ``python -m faults.soak``

The attackers run at the lowest priority and the good clients at the highest: in reality both have machines of their
own, and only what they send reaches the server's.
"""

from bench import BenchError


class FaultsError(BenchError):
    """The run cannot tell anything: say why and stop."""
