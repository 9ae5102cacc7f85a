"""How many examples hypothesis tries: all of them, or with the profile `fast` a fifth."""

from hypothesis import settings

ALL = 100  # the examples of a test without @examples, in the full profile


def examples(number: int) -> settings:
    """Decorator: try this many examples in the full profile, and the same share as other tests in another profile."""
    return settings(max_examples=max(1, number * settings().max_examples // ALL))
