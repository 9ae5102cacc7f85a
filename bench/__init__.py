"""What flashpol costs, measured beside its peers: ``python -m bench [all|cpu|silent|latency|startup]``.

Every claim about speed or memory in the documentation is a figure of this suite, and each figure is a ratio or a
quantity with a target. The suite needs a C compiler, Linux, and loopback; nginx with its stream module is measured
when it is installed. Nothing leaves the machine, and everything started ends with the run.

- ``loadgen/``     the load generator (C)             ``yardsticks/``   the plain C server (C)
- ``build.py``     compile both when needed           ``load.py``       run the load generator
- ``servers.py``   start and stop what is measured    ``measure.py``    readers of /proc, medians
- ``scenarios/``   one file a question                ``report.py``     figures, targets, the table
"""


class BenchError(Exception):
    """The run cannot give a figure that means something: say why and stop."""
