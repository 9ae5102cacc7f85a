"""flashpol serves Flash socket policies.

A gevent program that embeds a server imports `PolicyServer`; any program may import `RequestMatcher`, and the package
`flashpol.policy`, which is pure Python. The names here load their modules when first used, so that `flashpol.policy`
needs neither gevent nor the compiled extensions.
"""

from typing import TYPE_CHECKING

from flashpol.version import VERSION as __version__

if TYPE_CHECKING:
    from flashpol._fastpath import RequestMatcher, Verdict
    from flashpol.worker.embedded import PolicyServer

__all__ = ["PolicyServer", "RequestMatcher", "Verdict", "__version__"]


def __getattr__(name: str) -> object:
    if name == "PolicyServer":
        from flashpol.worker.embedded import PolicyServer

        return PolicyServer
    if name in ("RequestMatcher", "Verdict"):
        from flashpol import _fastpath

        return getattr(_fastpath, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
