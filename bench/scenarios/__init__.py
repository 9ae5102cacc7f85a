"""The questions of the suite: one file each, with a ``run(settings, results)`` that adds figures to the results."""
