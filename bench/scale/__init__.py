"""What it costs to hold millions of clients: a model of one host, and a simulation of a fleet. Nothing is measured here
but by ``measure``.

- ``figures.py``     the measured figures that the model takes, and where each is published
- ``published.py``   reads them from the tables of ``docs/performance.md``
- ``model.py``       one host: how many clients each of its limits allows, how long a storm of them takes
- ``simulation.py``  a fleet behind a balancer: arrivals, loss of a host, all clients at once
- ``scenarios.py``   the fleets and storms that ``docs/scale.md`` shows
- ``measured.py``    what the model predicts, measured on this machine; the last run is ``measured.json``
- ``comparison.py``  model beside measurement
- ``kernel.py``      what the kernel says of sockets and connections
- ``host_settings.py``   what to set on a host, and why
- ``tables.py``      the tables, which ``python -m bench.scale --write`` puts into ``docs/scale.md``
"""
