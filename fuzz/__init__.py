"""Fuzzing: ``python -m fuzz [TARGET …] [--seconds S]``.

- ``targets.py``   properties that must hold for any input, as functions of bytes: policies of both dialects, lint,
  decisions, merging, the configuration
- ``tls.py``       the same of the TLS codec, with OpenSSL's own client
- ``tunnel.py``    tunnel sessions (RTMPT): requests of several connections, and messages of other workers, at a worker
  that is turned by hand (``tunnel_worker.py``)
- ``native/``      the recognisers of the fast path, the same C, under libFuzzer with AddressSanitizer and
  UndefinedBehaviorSanitizer
- ``seeds/``       the first inputs of each target
- ``found/``       inputs that broke a target once; the tests replay them

Python targets run under atheris, which is libFuzzer for Python, each in a process of its own. The corpus is kept in
``build/fuzz/corpus``, which git ignores. An input that breaks a target is written to ``found/`` and must be committed.
"""


class FuzzError(Exception):
    """The run has no meaningful result; the message says why."""
