"""flashpol answers Flash socket policy requests.

An embedding gevent program imports `PolicyServer`; any program may import `RequestMatcher`, and the package
`flashpol.policy`, which is pure Python. The names below are loaded when first used, so importing `flashpol` costs
nothing and needs neither gevent nor the compiled extension.
"""

from importlib import import_module

from flashpol.version import VERSION as __version__

# typing's own costs more to load than all of this; type checkers know the name.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from flashpol._fastpath import RequestMatcher, Verdict
    from flashpol.worker.embedded import PolicyServer

__all__ = ["PolicyServer", "RequestMatcher", "Verdict", "__version__"]

_HOMES = {
    "PolicyServer": "flashpol.worker.embedded",
    "RequestMatcher": "flashpol._fastpath",
    "Verdict": "flashpol._fastpath",
}


def __getattr__(name: str) -> object:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
