"""Shared memory full of garbage: whatever a process wrote there, the admin process shows it and goes on."""

import dataclasses
import json
import random
import struct
from collections.abc import Callable
from functools import partial

import pytest
from contexts import make_context, make_full_context

import flashpol.cli.status
import flashpol.cli.top
from flashpol.admin.context import AdminContext
from flashpol.admin.endpoint import Application
from flashpol.admin.history import History, Sample
from flashpol.admin.status import status
from flashpol.config import UpstreamAddress
from flashpol.counters.mapping import SharedMapping

PATHS = ("/", "/-/live", "/-/status", "/metrics", "/-/ready", "/-/healthy")
# Words that a reader may fail at: the largest, those around 2^63 and 2^53, small ones, zero.
WORDS = (2**64 - 1, 2**63, 2**63 - 1, 2**53 + 1, 2**32, 10**18, 255, 7, 1, 0)

Fill = Callable[[random.Random, int], bytes]
FILLS: dict[str, Fill] = {
    "random": lambda chance, size: chance.randbytes(size),
    "words": lambda chance, size: b"".join(struct.pack("Q", chance.choice(WORDS)) for _ in range(size // 8)),
    "sparse": lambda chance, size: b"".join(
        struct.pack("Q", chance.choice(WORDS) if chance.random() < 0.05 else 0) for _ in range(size // 8)
    ),
    "largest": lambda chance, size: b"\xff" * size,
    "zero": lambda chance, size: bytes(size),
}


def mappings(context: AdminContext) -> list[SharedMapping]:
    return [context.shared._mapping, context.shared.address_limits._mapping, context.status._mapping]


def get(application: Application, path: str) -> tuple[str, bytes]:
    seen: list[str] = []
    environ = {"PATH_INFO": path, "REQUEST_METHOD": "GET"}
    body = b"".join(application(environ, lambda status, _: seen.append(status)))
    return seen[0], body


@pytest.mark.parametrize("then", FILLS)
@pytest.mark.parametrize("first", FILLS)
def test_garbage_in_every_mapping_is_shown_without_an_error(first: str, then: str) -> None:
    chance = random.Random(f"{first} {then}")
    for make in (make_context, make_full_context):
        context = make()
        history = History(partial(Sample.of, context))
        application = Application(context, history=history)
        for fill in (FILLS[first], FILLS[then]):
            for mapping in mappings(context):
                mapping.memory[:] = fill(chance, mapping.memory.nbytes)
            for path in PATHS:
                status, body = get(application, path)
                assert status.startswith("200" if path != "/-/ready" else ("200", "503")), (path, body)
                if path == "/-/status":
                    show(json.loads(body))
            sample = Sample.of(context)  # as if it was taken a minute ago, so that there are rates
            history.samples.append(dataclasses.replace(sample, at=sample.at - 60))


def show(document: dict[str, object]) -> None:
    """As the commands show it."""
    with flashpol.cli.status.readable(UpstreamAddress("192.0.2.1", 9843)):
        assert [*flashpol.cli.status.summary(document)]
        assert [*flashpol.cli.top.view(document, "192.0.2.1:9843")]


def test_garbage_as_the_state_of_the_server_is_unknown() -> None:
    context = make_context()
    context.status.state = 77
    assert status(context)["state"] == "unknown"
