"""The upstreams of a listener by protocol: `[listeners.upstreams]`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flashpol.config.address import UpstreamAddress
from flashpol.config.declare import setting, settings_of
from flashpol.config.locations import SourceLocation
from flashpol.config.setting_types import UPSTREAM, SettingType

RTMP, RTMPT = "rtmp", "rtmpt"
# The key of a protocol that has none of its own: what is inside a tunnel is RTMP.
_SAME_AS = {RTMPT: RTMP}


@dataclass(frozen=True)
class ProtocolUpstreams:
    """Where connections go whose protocol was recognised; each key is a protocol as metrics and log name it.

    There is no key for the rest, which `upstream` of the listener is for: two ways to write the same would be one too
    many.
    """

    rtmp: tuple[UpstreamAddress, ...] = setting(
        (),
        UPSTREAM,
        "RTMP is relayed to one of these addresses, also from inside TLS (RTMPS) and from inside HTTP (RTMPT).",
        "Without it RTMP goes to the `upstream` of the listener.",
        (UpstreamAddress("127.0.0.1", 1936),),
    )
    rtmpe: tuple[UpstreamAddress, ...] = setting(
        (),
        UPSTREAM,
        "RTMPE, which RTMP servers encrypt themselves, is relayed to one of these addresses.",
        "Without it RTMPE goes to `upstream` and not to `rtmp`, as many servers speak only the latter.",
        (UpstreamAddress("127.0.0.1", 1937),),
    )
    http: tuple[UpstreamAddress, ...] = setting(
        (),
        UPSTREAM,
        "HTTP that the listener does not reply to itself is relayed to one of these addresses as it comes.",
        "Without it HTTP goes to `upstream`, as some applications accept HTTP or WebSocket beside their own protocol.",
        (UpstreamAddress("127.0.0.1", 8080),),
    )
    tls: tuple[UpstreamAddress, ...] = setting(
        (),
        UPSTREAM,
        "TLS is relayed to one of these addresses as it comes; a listener that has certificates ends it instead.",
        "Without it TLS goes to `upstream`.",
        (UpstreamAddress("127.0.0.1", 8443),),
    )
    location: SourceLocation | None = field(default=None, compare=False, repr=False)

    @property
    def named(self) -> Mapping[str, tuple[UpstreamAddress, ...]]:
        """The protocols that have an upstream, with it."""
        return {name: value for name in settings_of(type(self)) if (value := getattr(self, name))}

    def of(self, protocol: str) -> Sequence[UpstreamAddress]:
        """Where a protocol goes; empty if the table does not name it."""
        return self.named.get(_SAME_AS.get(protocol, protocol), ())


def _show(upstreams: ProtocolUpstreams) -> str | None:
    pairs = [f"{name} = {UPSTREAM.show(value)}" for name, value in upstreams.named.items()]
    return f"{{{', '.join(pairs)}}}" if pairs else None


def _parse(value: dict[str, object]) -> Any:
    """As it is: the loader reads the table, since it knows where each key was written."""
    return value


UPSTREAMS = SettingType("a [listeners.upstreams] table", (dict,), _parse, show=_show)
