"""The bench suite measures what flashpol costs beside its peers: ``python -m bench all``.

Every claim about speed or memory in the documentation is a figure of this suite, and each figure is a ratio or a
quantity with a target. The suite needs a C compiler, Linux, and loopback; liburing, nginx with its stream module,
HAProxy, Go and node are measured when they are installed. No packet leaves the machine, and every process that was
started ends with the run.

- ``loadgen/``     the load generator (C)             ``baselines/``    servers in C, Go, Python, JavaScript
- ``build.py``     compile C and Go                   ``load.py``       run the load generator
- ``relay_load.py`` run the application behind relays, and its clients
- ``rtmpt_load.py`` the same for clients of RTMPT      ``stepwise.py``   clients that wait for lines of stdin
- ``publishing.py`` ffmpeg: publish, compare frames
- ``servers/``     start and stop what is measured    ``measure.py``    readers of /proc, medians
- ``scenarios/``   one file for each question; ``interleave.py``: interleaved rounds
- ``report.py``    figures, targets, the tables       ``charts.py``     PNG files, with matplotlib
- ``scale/``       a model of what a host and a fleet hold: ``python -m bench.scale``
- ``compare.py``   the changes between two runs       ``machine.py``, ``isolation.py``   the machine and its network
"""


class BenchError(Exception):
    """The run cannot produce a meaningful figure; the message says why."""
