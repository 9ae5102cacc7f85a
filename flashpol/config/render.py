"""Back to TOML: the defaults, each with its reason, and a whole configuration. What is written can be read again."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from textwrap import wrap
from typing import Any

from flashpol.config.setting_types import as_key
from flashpol.config.settings import (
    RELAYING,
    Config,
    ConnectionLimits,
    ConnectionTimeouts,
    Listener,
    PolicySource,
    Server,
    settings_of,
)

_WIDTH = 100
_HEAD = """\
# The configuration of flashpol: every setting with its default, the reason for it and what may be written.
# Only what differs needs to be in a file. A line that begins with # and a key shows what is not set by default.
"""
_BLOCKS = {
    "[policies.games]": (PolicySource, "A policy: one of file, folder and grants. Paths are relative to this file."),
    "[[listeners]]": (
        Listener,
        "An address and the policy it serves, as often as there are addresses. request_timeout to max_duration "
        "may be set here too, for one listener.",
    ),
}


def _comment(text: str) -> Iterator[str]:
    return (f"# {line}" for line in wrap(text, _WIDTH))


def _described(owner: Any, *, off: bool = False) -> Iterator[str]:
    """Each setting of a class with its default; as a comment what has none, or everything if `off`."""
    for name, setting in settings_of(owner).items():
        kind, why, example = (setting.metadata[key] for key in ("kind", "why", "example"))
        default = None if off and example is not None else kind.show(setting.default)
        yield from ("", *_comment(why), *_comment(f"Write {kind.expected}."))
        yield f"{'#' * (off or default is None)}{name} = {kind.show(example) if default is None else default}"


def defaults() -> str:
    """A configuration file that changes nothing, with a comment for everything that can be set."""
    lines = [_HEAD, "[server]", *_described(Server), *_described(ConnectionTimeouts), *_described(ConnectionLimits)]
    for header, (owner, about) in _BLOCKS.items():
        lines += ["", "", *_comment(about), f"#{header}", *_described(owner, off=True)]
    return "\n".join(lines) + "\n"


def _pairs(owner: object) -> dict[str, str]:
    """What an object sets, as TOML."""
    shown = {name: field.metadata["kind"].show(getattr(owner, name)) for name, field in settings_of(owner).items()}
    return {name: value for name, value in shown.items() if value is not None}


def _server(server: Server) -> Iterator[str]:
    usual = _pairs(Server()) | _pairs(ConnectionTimeouts()) | _pairs(ConnectionLimits())
    for name, value in (_pairs(server) | _pairs(server.timeouts) | _pairs(server.connection_limits)).items():
        yield f"{name} = {value}{'  # default' * (usual.get(name) == value)}"


def _policy(source: PolicySource) -> Iterator[str]:
    """Its paths from the root, since what is printed may be kept anywhere."""
    paths = {key: path.absolute() for key in ("file", "folder") if (path := getattr(source, key)) is not None}
    pairs = _pairs(replace(source, **paths)) or {"grants": "[]"}
    return (f"{key} = {value}" for key, value in pairs.items())


def _listener(config: Config, listener: Listener) -> Iterator[str]:
    usual = _pairs(config.server.timeouts)
    own = {name: value for name, value in _pairs(config.timeouts(listener)).items() if value != usual[name]}
    pairs = {name: value for name, value in _pairs(listener).items() if listener.shared or name not in RELAYING}
    return (f"{name} = {value}" for name, value in (pairs | own).items())


def as_toml(config: Config, comments: Sequence[str] = ()) -> str:
    """The whole of a configuration, with a comment for each listener if they are given."""
    lines = ["[server]", *_server(config.server)]
    for source in config.policies:
        lines += ["", f"[policies.{as_key(source.name)}]", *_policy(source)]
    for number, listener in enumerate(config.listeners):
        lines += ["", "[[listeners]]", *comments[number : number + 1], *_listener(config, listener)]
    return "\n".join(lines) + "\n"
