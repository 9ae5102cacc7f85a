"""Good clients of RTMPT see every fault of a server, and hostile ones fill in the id of their session."""

import time
from pathlib import Path

import pytest

from faults import rtmpt
from faults.clients import GoodClients, HostileClients, RequestResult
from faults.places import RTMPT_BROWSER, RTMPT_GAME, RTMPT_QUIET_PLAYER, SAME_LISTENER, Kind, Row
from faults.server import MESSAGES, write_messages
from testkit.polling import eventually
from testkit.rtmpt_echo import Change, RtmptStub, http, rtmpt_stub


class FakeServer:
    """What clients need of a server: one listener, and files."""

    def __init__(self, port: int, folder: Path) -> None:
        self.ports = {"games": port}
        self._folder = folder
        self._messages = {**MESSAGES, **rtmpt.messages(MESSAGES["hello"], MESSAGES["film"])}
        write_messages(folder, self._messages)

    def script(self, _: str, steps: str) -> str:
        return steps.format(**{name: self._folder / name for name in self._messages})


def run_good(stub: RtmptStub, folder: Path, kind: Kind, seconds: float = 0.2) -> list[RequestResult]:
    with rtmpt_stub(stub) as port:
        server = FakeServer(port, folder)
        with GoodClients(server, folder / "trace", [Row(SAME_LISTENER, "games", kind)]) as good:  # type: ignore[arg-type]
            time.sleep(seconds)
        return good.results()[SAME_LISTENER]


@pytest.mark.parametrize("kind", [RTMPT_GAME, RTMPT_BROWSER], ids=lambda kind: kind.name)
def test_good_client_of_a_server_that_echoes_is_served(kind: Kind, tmp_path: Path) -> None:
    stub = RtmptStub(hold=0.05)
    results = run_good(stub, tmp_path, kind)
    assert results
    assert {each.outcome for each in results} == {"ok"}
    assert stub.wrong_numbers == []
    connections = {each.connection for each in stub.asked if each.session == stub.asked[0].session}
    assert len(connections) == 1 or kind is RTMPT_BROWSER


def test_player_that_polls_does_not_count_the_time_for_which_polls_are_held(tmp_path: Path) -> None:
    results = run_good(RtmptStub(hold=0.05), tmp_path, RTMPT_QUIET_PLAYER)
    assert {each.outcome for each in results} == {"ok"}
    assert all(each.waited >= 0.15 for each in results[:1])


def changed(what: str, status: int = 200, body: bytes | None = None) -> Change:
    """Replies to this kind of request are others."""
    return lambda asked, was, content: (
        http(status, content if body is None else body) if asked == what else http(was, content)
    )


@pytest.mark.parametrize(
    ("change", "outcome"),
    [
        (changed("open", 503), "http-503"),
        (changed("send", 404), "http-404"),
        (changed("idle", body=b"\1wrong"), "mismatch"),
        (changed("idle", body=b""), "mismatch"),
        (changed("close", body=b"\0x"), "mismatch"),
        (lambda what, status, body: b"" if what == "idle" else http(status, body), "short"),
        (lambda what, status, body: http(status, body) + b"x" if what == "close" else http(status, body), "mismatch"),
    ],
)
def test_good_client_by_fault_records_the_outcome(change: Change, outcome: str, tmp_path: Path) -> None:
    results = run_good(RtmptStub(change=change, echo_at_once=False), tmp_path, RTMPT_GAME)
    assert results
    assert {each.outcome for each in results} == {outcome}


def test_hostile_client_learns_its_session_and_numbers_its_requests(tmp_path: Path) -> None:
    stub = RtmptStub()
    with rtmpt_stub(stub) as port:
        script = "send:{rt-open},learn,ask:{rt-send},await,renew,ask:{rt-idle},await,ask:{rt-send}*3,await"
        with HostileClients(
            FakeServer(port, tmp_path),  # type: ignore[arg-type]
            "games",
            script,
            connections=2,
            rate=1000,
            total=2,
        ) as bad:
            eventually(lambda: stub.count("send") == 4, "all requests")
        assert bad.output["secured"] == 2
    assert {each.session for each in stub.asked if each.what != "open"} == set(stub.sessions)
    assert len({each.connection for each in stub.asked}) == 4
    assert sorted(number for _, number, _ in stub.wrong_numbers) == [5, 5]  # three were left out
