"""Writes TOML: a file of defaults with comments, and a whole configuration. `load` reads both."""

from collections.abc import Container, Iterator, Sequence
from dataclasses import MISSING, replace
from pathlib import Path
from textwrap import wrap
from typing import Any

from flashpol.config.declare import describe, settings_of
from flashpol.config.limits import ConnectionLimits, ConnectionTimeouts
from flashpol.config.setting_types import as_key
from flashpol.config.settings import (
    ABOUT_HTTP,
    ENCRYPTING,
    RELAYING,
    CertificateSource,
    Config,
    Listener,
    PolicySource,
    Server,
)
from flashpol.config.upstreams import ProtocolUpstreams
from flashpol.config.websocket import WebSocketPath

_WIDTH = 100
_HEAD = """\
# The configuration of flashpol: every setting with what it does, why its default is what it is, and what to write.
# A line such as #user = "flashpol" is not set by default. The policy and the listener at the end are examples: write
# your own. A file needs only those two, and the settings that differ from the default.
"""
# Table -> its settings, those that the example of it sets, and an introduction. A table with # is a comment as a whole.
_BLOCKS = {
    "[policies.games]": (
        PolicySource,
        {"grants"},
        "A policy is exactly one of file, folder, grants and deny_all. There may be any number of policies.",
    ),
    "#[certificates.games]": (
        CertificateSource,
        (),
        "A certificate is for listeners that name it in `tls`. There may be any number of certificates.",
    ),
    "[[listeners]]": (
        Listener,
        {"address", "policy"},
        "A listener is an address and the policy it serves; write one [[listeners]] for each address. The settings "
        "from request_timeout to rtmpt_body may be set here too, for this listener alone.",
    ),
    "#[[listeners.websocket]]": (
        WebSocketPath,
        (),
        "A table for each path at which the listener above takes WebSocket connections, instead of websocket = true.",
    ),
    "#[listeners.upstreams]": (
        ProtocolUpstreams,
        (),
        "The upstreams of the listener above by protocol, as a table instead of upstreams in one line. What is not "
        "named here goes to its upstream.",
    ),
}


def _comment(text: str) -> Iterator[str]:
    return (f"# {line}" for line in wrap(text, _WIDTH))


def _described(owner: Any, active: Container[str] | None = None) -> Iterator[str]:
    """Each setting of a class with its default; one without a default is a comment with an example.

    active: the settings that are not comments, with their examples; None means those with a default.
    """
    for name, setting in settings_of(owner).items():
        kind, example = setting.metadata["type"], setting.metadata["example"]
        default = None if active is not None and example is not None else kind.show(setting.default)
        off = default is None if active is None else name not in active
        yield from ("", *_comment(describe(setting)), *_comment(f"Write {kind.expected}."))
        yield f"{'#' * off}{name} = {kind.show(example) if default is None else default}"


def defaults() -> str:
    """A configuration file of the defaults, with a comment for every setting and an example of a policy."""
    lines = [_HEAD, "[server]", *_described(Server), *_described(ConnectionTimeouts), *_described(ConnectionLimits)]
    for header, (owner, active, about) in _BLOCKS.items():
        lines += ["", "", *_comment(about), header, *_described(owner, active)]
    return "\n".join(lines) + "\n"


def _pairs(owner: object) -> dict[str, str]:
    """Setting -> value as TOML, for the settings that an object has."""
    shown = {name: field.metadata["type"].show(getattr(owner, name)) for name, field in settings_of(owner).items()}
    return {name: value for name, value in shown.items() if value is not None}


def _server(server: Server) -> Iterator[str]:
    pairs = _pairs(server) | _pairs(server.timeouts) | _pairs(server.connection_limits)
    return _marked(pairs, Server, ConnectionTimeouts, ConnectionLimits)


def _marked(pairs: dict[str, str], *owners: Any) -> Iterator[str]:
    """`name = value`, with a comment where the value is the default of one of these classes."""
    fields = {name: field for owner in owners for name, field in settings_of(owner).items()}
    defaults = {
        name: field.metadata["type"].show(field.default)
        for name, field in fields.items()
        if field.default is not MISSING
    }
    return (f"{name} = {value}{'  # default' * (defaults.get(name) == value)}" for name, value in pairs.items())


def _with_absolute_paths(owner: Any) -> Any:
    """The printed file may be saved in another folder."""
    values = {key: getattr(owner, key) for key in settings_of(owner)}
    return replace(owner, **{key: value.absolute() for key, value in values.items() if isinstance(value, Path)})


def _source(source: CertificateSource | PolicySource) -> Iterator[str]:
    pairs = _pairs(_with_absolute_paths(source)) or {"grants": "[]"}
    return (f"{key} = {value}" for key, value in pairs.items())


def _listener(config: Config, listener: Listener) -> Iterator[str]:
    server = _pairs(config.server.timeouts)
    own = {name: value for name, value in _pairs(config.timeouts(listener)).items() if value != server[name]}
    unused = {
        *(() if listener.relays else RELAYING),
        *(() if listener.tls else ENCRYPTING),
        *(() if listener.takes_http else ABOUT_HTTP),
    }
    pairs = {name: value for name, value in _pairs(_with_absolute_paths(listener)).items() if name not in unused}
    yield from _marked(pairs | own, Listener)
    if "websocket" not in pairs:
        for path in listener.websocket:
            yield from ("", "[[listeners.websocket]]", *_marked(_pairs(path), WebSocketPath))


def as_toml(config: Config, comments: Sequence[str] = (), certificate_comments: Sequence[str] = ()) -> str:
    """A whole configuration; comments: one for each listener, and one for each certificate, if any."""
    lines = ["[server]", *_server(config.server)]
    for policy in config.policies:
        lines += ["", f"[policies.{as_key(policy.name)}]", *_source(policy)]
    for number, certificate in enumerate(config.certificates):
        about = certificate_comments[number : number + 1]
        lines += ["", f"[certificates.{as_key(certificate.name)}]", *about, *_source(certificate)]
    for number, listener in enumerate(config.listeners):
        lines += ["", "[[listeners]]", *comments[number : number + 1], *_listener(config, listener)]
    return "\n".join(lines) + "\n"
