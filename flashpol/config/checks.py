"""Checks that need more than one setting: names, addresses and networks that collide or do not fit."""

import ipaddress

from flashpol.config.address import Address, Endpoint, SystemdSocket
from flashpol.config.errors import ConfigError
from flashpol.config.limits import ConnectionTimeouts
from flashpol.config.locations import SourceLocation
from flashpol.config.settings import FLASH, MAX_LISTENERS, REFUSE, Config, Listener
from flashpol.config.upstreams import RTMPT
from flashpol.config.websocket import EVERY_PATH, WebSocketPath

# The first part of the paths of RTMPT.
_TUNNEL_PATHS = ("open", "send", "idle", "close", "fcs")


def check(config: Config) -> Config:
    """Checks that need more than one setting: names, addresses and networks that collide. Returns the configuration.

    Raises ConfigError.
    """
    if not config.listeners:
        raise ConfigError("no listener: add --listen IP:PORT or [[listeners]]")
    if len(config.listeners) > MAX_LISTENERS:
        raise ConfigError(f"{len(config.listeners)} listeners: one server has at most {MAX_LISTENERS}")
    for listener in config.listeners:
        _check_access(listener)
        _check_upstream(listener)
        _check_upstreams(listener)
        _check_transparent(listener)
        _check_tls(listener)
        _check_websocket(listener)
        _check_rtmpt(listener, config.timeouts(listener))
    _check_names(config)
    _check_addresses(config)
    return config


def _check_access(listener: Listener) -> None:
    for network in set(listener.allow_networks).intersection(listener.deny_networks):
        message = f"{network} is in both allow_networks and deny_networks: remove one"
        raise _error(listener, message, "deny_networks")
    if listener.proxy_protocol and not listener.proxy_networks:
        raise _error(listener, "proxy_protocol = true requires proxy_networks", "proxy_protocol")
    if listener.proxy_networks and not listener.proxy_protocol:
        raise _error(listener, "proxy_networks requires proxy_protocol = true", "proxy_networks")


def _check_upstream(listener: Listener) -> None:
    address = listener.address
    if isinstance(address, Address) and any(upstream.arrives_at(address) for upstream in listener.upstream):
        message = f"the upstream of {address} is this listener itself: give the application a port of its own"
        raise _error(listener, message, "upstream")


def _check_upstreams(listener: Listener) -> None:
    """Each key must be of use."""
    address = listener.address
    for protocol, upstream in listener.upstreams.named.items():
        if isinstance(address, Address) and any(each.arrives_at(address) for each in upstream):
            message = f"the upstream of {protocol} is this listener itself: give the application a port of its own"
            raise _upstreams_error(listener, message, protocol)
    if "tls" in listener.upstreams.named and listener.tls:
        message = (
            "the upstream of tls gets nothing, as the listener has certificates and ends TLS itself: remove it, or tls "
            "of the listener"
        )
        raise _upstreams_error(listener, message, "tls")
    if "http" in listener.upstreams.named:
        if listener.takes_http and listener.other_http == REFUSE:
            message = f'the upstream of http gets nothing with other_http = "{REFUSE}": remove one of them'
            raise _upstreams_error(listener, message, "http")
        if any(path.path == EVERY_PATH for path in listener.websocket):
            message = (
                "the upstream of http gets nothing, as WebSocket has every path: name its paths in "
                "[[listeners.websocket]] tables, or remove http"
            )
            raise _upstreams_error(listener, message, "http")


def _upstreams_error(listener: Listener, message: str, protocol: str) -> ConfigError:
    location = listener.upstreams.location and listener.upstreams.location.child(protocol)
    return ConfigError(f"{listener.title}: {message}", location)


def _check_rtmpt(listener: Listener, timeouts: ConnectionTimeouts) -> None:
    if not listener.rtmpt:
        return
    if not listener.upstream_for(RTMPT):
        message = "rtmpt has no upstream to relay to: set upstream, or rtmp in [listeners.upstreams]"
        raise _error(listener, message, "rtmpt")
    for path in listener.websocket:
        if path.path.startswith("/") and path.path.split("/")[1] in _TUNNEL_PATHS:
            raise _path_error(listener, path, "begins as those of RTMPT do: write another", "path")
    for name in ("rtmpt_hold", "rtmpt_gap"):
        if getattr(timeouts, name) >= timeouts.rtmpt_session_timeout:
            message = (
                f"rtmpt_session_timeout = {timeouts.rtmpt_session_timeout:g} would end a session while {name} = "
                f"{getattr(timeouts, name):g} lasts: make it longer"
            )
            raise _error(listener, message, "rtmpt_session_timeout")


def _check_websocket(listener: Listener) -> None:
    if listener.websocket and listener.dialect != FLASH:
        message = f"websocket is for Flash content, which a policy of dialect {listener.dialect} says nothing about"
        raise _error(listener, f"{message}: give it a listener of its own", "websocket")
    seen: dict[str, WebSocketPath] = {}
    for path in listener.websocket:
        if not listener.upstream_of(path):
            raise _path_error(listener, path, "has no upstream to relay to: set upstream")
        address = listener.address
        if isinstance(address, Address) and any(upstream.arrives_at(address) for upstream in path.upstream):
            message = "leads to this listener itself: give the application a port of its own"
            raise _path_error(listener, path, message, "upstream")
        if path.path in listener.policy_files:
            raise _path_error(listener, path, "is that of a policy file, which is served there: write another", "path")
        if seen.setdefault(path.path, path) is not path:
            other = seen[path.path].location
            message = f"is there twice: remove one{f' (the other one: {other})' if other else ''}"
            raise _path_error(listener, path, message, "path")


def _path_error(listener: Listener, path: WebSocketPath, message: str, *key: str) -> ConfigError:
    """An error about one path; `websocket = true` has no table, and no place but the listener's key."""
    if path.location is None and path.path == EVERY_PATH:
        return _error(listener, f"websocket {message}", "websocket")
    location = path.location and path.location.child(*key)
    return ConfigError(f"{listener.title}: the WebSocket path {path.path} {message}", location)


def _check_transparent(listener: Listener) -> None:
    """Each upstream must be one that at least some clients can have as the destination of their own address."""
    if not listener.transparent:
        return
    for upstream in listener.all_upstreams:
        if upstream.path:
            message = (
                f'upstream_source = "client" cannot reach {upstream}, since a Unix socket has no address: give the '
                "application an IP address and a port, or remove upstream_source"
            )
            raise _error(listener, message, "upstream_source")
        if upstream.is_ip and not _may_have_clients(listener, ipaddress.ip_address(upstream.host).version):
            version = 6 if ":" in upstream.host else 4
            message = (
                f'upstream_source = "client" cannot reach {upstream}: no client of {listener.address} has an '
                f"IPv{version} address; write an IPv{10 - version} address of the application"
            )
            raise _error(listener, message, "upstream_source")


def _may_have_clients(listener: Listener, version: int) -> bool:
    """False if no client of the listener can have an address of this IP version."""
    if listener.proxy_protocol or listener.forwarded_networks:  # a proxy has clients of any version
        return True
    if not isinstance(listener.address, Address) or listener.address.host == "::":
        return True
    return version == (6 if ":" in listener.address.host else 4)


def _check_tls(listener: Listener) -> None:
    if listener.upstream_proxy_tls and listener.upstream_proxy != "v2":
        message = 'upstream_proxy_tls = true requires upstream_proxy = "v2"'
        raise _error(listener, message, "upstream_proxy_tls")


def _error(listener: Listener, message: str, key: str) -> ConfigError:
    """An error about one setting of a listener."""
    location = listener.location and listener.location.child(key)
    return ConfigError(f"{listener.title}: {message}", location)


def _check_names(config: Config) -> None:
    seen: dict[str, Listener] = {}
    for listener in config.listeners:
        if listener.name is not None and (other := seen.setdefault(listener.name, listener)) is not listener:
            raise _conflict(listener, other.location, f"two listeners are named {listener.name}: rename one")


def _check_addresses(config: Config) -> None:
    """No two listeners, and no listener and the admin endpoint, may need the same socket."""
    seen: dict[Endpoint, Listener] = {}
    for listener in config.listeners:
        endpoint = listener.address
        if _is_fixed(endpoint) and (other := seen.setdefault(endpoint, listener)) is not listener:
            raise _conflict(listener, other.location, f"two listeners are on {endpoint}: change one")
    admin, location = config.server.admin, config.server.locations.get("admin")
    if admin and _is_fixed(admin) and admin in seen:
        raise _conflict(seen[admin], location, f"a listener and the admin endpoint are on {admin}: change one")
    bound = [(one.address, one) for one in config.listeners if isinstance(one.address, Address) and one.address.port]
    for address, listener in bound:
        if isinstance(admin, Address) and (admin.covers(address) or address.covers(admin)):
            message = f"{address} overlaps the admin endpoint's {admin}: give each its own port"
            raise _conflict(listener, location, message)
    for wide, first in bound:
        for narrow, second in bound:
            if wide != narrow and wide.covers(narrow):
                message = f"{narrow} overlaps {wide}, which serves it too: remove one"
                raise _conflict(second, first.location, message)


def _is_fixed(endpoint: Endpoint) -> bool:
    """False for port 0, for which the kernel gives each listener a port of its own."""
    return isinstance(endpoint, SystemdSocket) or bool(endpoint.port)


def _conflict(listener: Listener, other: SourceLocation | None, message: str) -> ConfigError:
    """An error at the listener that also names where the other one was written, as far as a file has them."""
    if other:
        message += f" (the other one: {other})"
    return ConfigError(message, listener.location)
