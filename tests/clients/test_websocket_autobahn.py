"""Autobahn's cases, as kosoku runs them, against flashpol in front of an application that echoes bytes.

The cases expect each message back as one, of the same kind: `testkit/websocket_joining.py` gives messages their borders
back and leaves everything else as it is, so kosoku judges every case. Left out:

- 1.1.1, 1.2.1, 6.1.1, 6.1.2, 9.7.1, 9.8.1: an empty message, which is no byte for the application, does not come back.
- 13.3 and 13.5: the client limits the server's window to 512 bytes; such an offer is declined.
- of 12 and 13, messages of 16 KB and more, except in one case with fragments: a case has a thousand of them, and 9 has
  larger ones.
"""

import asyncio
from collections.abc import Sequence
from typing import Any

import kosoku
import pytest

from testkit.client_fixtures import Echo
from testkit.client_site import ClientSite
from testkit.processes import Flashpol
from testkit.websocket_joining import joining_proxy

pytestmark = pytest.mark.slow
EMPTY = ["1.1.1", "1.2.1", "6.1.1", "6.1.2", "9.7.1", "9.8.1"]
SIZES = range(1, 7)  # of 12 and 13: 16 bytes to 8 KB; 11 is 8 KB in fragments of 256 bytes, 12 is 16 KB in such
COMPRESSED = [f"12.{data}.{size}" for data in range(1, 6) for size in (*SIZES, 11)] + ["12.3.12"]
AGREED = [f"13.{offer}.{size}" for offer in (1, 2, 4, 6, 7) for size in (1, 6, 11)]
DECLINED = ["13.3.1", "13.5.1"]
# Cases that send text and keep to the protocol.
TEXT = ["1.1.*", "5.3", "5.4", "5.5", "5.6", "5.7", "5.8", "5.19", "5.20", "6.2.*", "6.5.*", "6.7.*", "6.9.*", "6.11.*"]
CONCURRENCY = 8


def run(server: Flashpol, cases: Sequence[str], leave_out: Sequence[str] = ()) -> list[Any]:
    """The results of all cases, passed or not."""

    async def through_proxy() -> list[Any]:
        async with joining_proxy(server.place) as port:
            try:
                return await kosoku.run_fuzzingclient(
                    f"ws://127.0.0.1:{port}/", cases=cases, exclude_cases=leave_out, concurrency=CONCURRENCY
                )
            except kosoku.FailureError as failed:
                return failed.results

    return asyncio.run(through_proxy())


def serve(site: ClientSite, echo: Echo, **path: bool) -> Flashpol:
    every_page = {"path": "*", "origins": "any", "without_origin": True} | path
    return site.serve(upstream=echo.address, websocket=[every_page])


def assert_passed(results: Sequence[Any], count: int) -> None:
    failed = [f"{each.case_id}: {each.result} {each.result_close}" for each in results if not each.passed]
    assert not failed, "\n".join(failed)
    assert len(results) == count


@pytest.mark.parametrize(
    ("cases", "count"),
    [
        (["1.*"], 14),  # messages
        (["2.*"], 11),  # pings
        (["3.*", "4.*"], 17),  # reserved bits and opcodes
        (["5.*"], 20),  # fragments
        (["6.*"], 143),  # UTF-8
        (["7.*"], 37),  # the closing handshake
        (["9.*"], 52),  # up to 16 MB, fragments of 64 bytes
        (["10.*"], 1),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_case_passes(site: ClientSite, echo: Echo, cases: list[str], count: int) -> None:
    with serve(site, echo, text=True) as server:
        assert_passed(run(server, cases, EMPTY), count)
        assert server.stop() == 0


def test_case_with_compression_passes(site: ClientSite, echo: Echo) -> None:
    with serve(site, echo, text=True, compression=True) as server:
        assert_passed(run(server, COMPRESSED + AGREED), len(COMPRESSED + AGREED))
        assert {each.behavior.value for each in run(server, DECLINED)} == {"UNIMPLEMENTED"}
        assert server.stop() == 0


def test_case_of_the_protocol_passes_beside_compression(site: ClientSite, echo: Echo) -> None:
    """kosoku offers no compression there."""
    with serve(site, echo, text=True, compression=True) as server:
        assert_passed(run(server, ["2.*", "3.*", "4.*", "5.*"], EMPTY), 48)


def test_text_is_refused_unless_it_is_configured(site: ClientSite, echo: Echo) -> None:
    with serve(site, echo) as server:
        results = run(server, TEXT)
        assert len(results) > 30
        assert {each.case_id: each.remote_close_code for each in results if each.remote_close_code != 1003} == {}
        assert_passed(run(server, ["1.2.*", "2.*", "9.2.1", "9.4.1"], EMPTY), 20)
