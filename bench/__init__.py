"""What flashpol costs, measured beside its peers: ``python -m bench all``.

Every claim about speed or memory in the documentation is a figure of this suite, and each figure is a ratio or a
quantity with a target. The suite needs a C compiler, Linux, and loopback; liburing, nginx with its stream module,
HAProxy, Go and node are measured when they are installed. Nothing leaves the machine, and everything started ends with
the run.

- ``loadgen/``     the load generator (C)             ``yardsticks/``   servers in C, Go, Python, JavaScript
- ``build.py``     compile what is to be compiled     ``load.py``       run the load generator
- ``relay_load.py`` run the application behind relays, and its clients
- ``servers/``     start and stop what is measured    ``measure.py``    readers of /proc, medians
- ``scenarios/``   one file a question; ``turns.py``: servers in turn
- ``report.py``    figures, targets, the tables       ``charts.py``     PNG files, with matplotlib
- ``compare.py``   two runs, what changed for sure    ``machine.py``, ``isolation.py``   where it runs
"""


class BenchError(Exception):
    """The run cannot give a figure that means something: say why and stop."""
