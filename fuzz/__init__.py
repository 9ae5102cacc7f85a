"""Inputs that nobody thought of: ``python -m fuzz [TARGET …] [--seconds S]``.

- ``targets.py``   what must hold for any input, as functions of bytes: policies of both dialects, lint, decisions,
  merging, the configuration
- ``native/``      the recognisers of the fast path, their very C, under libFuzzer with AddressSanitizer and
  UndefinedBehaviorSanitizer
- ``seeds/``       where each target begins
- ``found/``       inputs that broke something once, replayed by the tests

Python targets run under atheris, which is libFuzzer for Python, each in a process of its own. What is learnt is kept
in ``build/fuzz/corpus``, which git ignores; what breaks something is written to ``found/`` and belongs in a commit.
"""


class FuzzError(Exception):
    """The run cannot tell anything: say why and stop."""
