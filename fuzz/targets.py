"""The targets: properties that must hold for any bytes. A target returns, or raises an exception for a violation.

This module imports no fuzzer: the tests run the same functions on seeds and on inputs that were found.
"""

import codecs
import importlib.util
import io
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PosixPath
from typing import Any

from flashpol._websocket import COMPRESSES
from flashpol.config import Config, ConfigError, check
from flashpol.config.render import as_toml
from flashpol.config.toml_loader import MAX_CONFIG_BYTES, load
from flashpol.policy import (
    CLIENTS,
    DECIDE_CLIENTS,
    MAX_POLICY_BYTES,
    Decider,
    Fragment,
    MergeError,
    PolicyError,
    Severity,
    lint,
)
from flashpol.policy import flash as flash_dialect
from flashpol.policy import silverlight as silverlight_dialect
from flashpol.policy.merge import allows, merge_files, merge_policies
from fuzz.http import http_head
from fuzz.tunnel import tunnel, tunnel_line
from fuzz.websocket import websocket, websocket_frames

ROOT = Path(__file__).parent.parent
UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
PORTS = (None, 843, 943, 5222)
CONTENTS = ("http://www.example.com/game.swf", "https://example.com", "file:///game.swf", "10.0.0.1", "http://[::1]/x")
HOSTS = ("example.com", "www.example.com", "a.b.example.net", "10.0.0.1")
ASKED_PORTS = (80, 843, 1024, 1935, 4502, 65535)


def _one_line(error: Exception) -> None:
    assert "\n" not in str(error), "an error is one line"


def _round_trip(dialect: Any, data: bytes, *, end: bytes) -> None:
    """A policy that is parsed can be written with the same meaning, and can be served byte for byte, with `end`."""
    try:
        policy = dialect.parse(data)
    except PolicyError as error:
        _one_line(error)
        return
    written = dialect.render(policy)
    if len(written) <= MAX_POLICY_BYTES:  # our spelling of a dense policy is longer
        assert dialect.parse(written) == policy, "the written form has another meaning"
    try:
        reply = dialect.compile_reply(data)
    except PolicyError:
        assert b"\0" in data.removesuffix(b"\0"), "parsed, but refused as a reply"  # UTF-16
        return
    # A Flash client stops reading at the first NUL, so the reply ends there; Silverlight's has none, or is UTF-16.
    text = data.removesuffix(b"\0") if reply.startswith(UTF16_MARKS) else data.partition(b"\0")[0]
    assert reply == text + end, "a reply must be the file as it is, up to its first NUL"


def flash(data: bytes) -> None:
    _round_trip(flash_dialect, data, end=b"\0")


def silverlight(data: bytes) -> None:
    _round_trip(silverlight_dialect, data, end=b"")


def linting(data: bytes) -> None:
    """Lint does not raise, gives each finding a position, and reports an error if no dialect can parse the input."""
    for served_from in PORTS:
        for finding in lint(data, served_from=served_from):
            assert finding.line >= 1
            assert finding.column >= 1
            assert "\n" not in finding.message + finding.instead, "a finding is one line"
    for client in CLIENTS:
        lint(data, served_from=843, clients=[client])
    for port in PORTS:
        lint(data, served_from=port, by_url=True)
    for dialect in (flash_dialect, silverlight_dialect):
        with suppress(PolicyError):
            dialect.parse(data)
            return
    assert any(finding.severity is Severity.ERROR for finding in lint(data)), "refused without an error from lint"


def decisions(data: bytes) -> None:
    """Every client reaches a decision."""
    decider = Decider(data)
    for content in CONTENTS:
        for port in ASKED_PORTS:
            for served_from in PORTS:
                found = decider.decide(content, port, served_from=served_from)
                assert [decision.client for decision in found] == list(DECIDE_CLIENTS)
                assert all("\n" not in decision.reason for decision in found), "a reason is one line"


def merging(data: bytes) -> None:
    """Fragments with NULs between them: the merge allows exactly what some fragment allows."""
    files = [(f"{number}.xml", part) for number, part in enumerate(data.split(b"\0")[:8])]
    try:
        merged = merge_files(files, provenance=True)
    except PolicyError:
        return
    assert merge_files(files[::-1], provenance=True) == merged, "the order of files must not matter"
    fragments = [Fragment.read(name, part) for name, part in files]
    with suppress(MergeError):
        policy = merge_policies(fragments)
        assert flash_dialect.parse(merged).grants == policy.grants
        for host in HOSTS:
            for port in ASKED_PORTS:
                for https in (False, True):
                    expected = any(allows(fragment.policy, host, port, https=https) for fragment in fragments)
                    assert allows(policy, host, port, https=https) == expected, f"{host} {port} {https}"


class _Held(PosixPath):
    """A file in memory."""

    data: bytes

    def open(self, *_: object, **__: object) -> io.BytesIO:  # type: ignore[override]
        return io.BytesIO(self.data)


def configuration(data: bytes) -> None:
    """A mistake is a ConfigError of one line; a loaded configuration is the same after writing and loading."""
    path = _Held("/somewhere/flashpol.toml")
    path.data = data[: MAX_CONFIG_BYTES + 1]
    try:
        config = check(load(path))
    except ConfigError as error:
        _one_line(error)
        return
    again = _Held("/somewhere/flashpol.toml")
    again.data = as_toml(config).encode()
    assert _effective(load(again)) == _effective(config), "the written form has another meaning"


def _effective(config: Config) -> object:
    """The effective configuration. A limit that a listener repeats is not written again."""
    listeners = [replace(listener, timeouts=config.timeouts(listener)) for listener in config.listeners]
    return config.server, config.certificates, config.policies, listeners


CORPUS = ROOT / "tests" / "policy" / "corpus"
SEEDS = Path(__file__).parent / "seeds"

# Name -> the function, and the folders of its seeds.
TARGETS: dict[str, tuple[Callable[[bytes], None], tuple[Path, ...]]] = {
    "flash": (flash, (CORPUS,)),
    "silverlight": (silverlight, (CORPUS,)),
    "lint": (linting, (CORPUS,)),
    "decide": (decisions, (CORPUS,)),
    "merge": (merging, (CORPUS, SEEDS / "merge")),
    "config": (configuration, (SEEDS / "config",)),
    "http_head": (http_head, (SEEDS / "http_head",)),
    "websocket": (websocket, (SEEDS / "websocket",)),
    "websocket_frames": (websocket_frames, (SEEDS / "websocket_frames",)),
    "tunnel": (tunnel, (SEEDS / "tunnel",)),
    "tunnel_line": (tunnel_line, (SEEDS / "tunnel_line",)),
}

# What the build does not have is not fuzzed.
if importlib.util.find_spec("flashpol._tls"):
    from fuzz import tls

    TARGETS |= {
        "tls_hello": (tls.tls_hello, (SEEDS / "tls_hello",)),
        "tls_connection": (tls.tls_connection, (SEEDS / "tls_connection",)),
    }

if COMPRESSES:
    from fuzz import deflate

    TARGETS["websocket_deflate"] = (deflate.websocket_deflate, (SEEDS / "websocket_deflate",))
