"""Upstreams of WebSocket paths beside those of listeners: each session is counted at the upstream that has it."""

from pathlib import Path

from testkit.application import application
from testkit.clients import connect
from testkit.polling import eventually
from testkit.processes import Flashpol


def test_sessions_of_a_port_are_counted_at_its_own_upstream_beside_those_of_paths(tmp_path: Path) -> None:
    with application() as own, application() as of_path, application() as other:
        listener = '[[listeners]]\nname = "{}"\naddress = "127.0.0.1:0"\n'
        path = '[[listeners.websocket]]\npath = "/{}"\nupstream = "{}"\n'
        (tmp_path / "flashpol.toml").write_text(
            '[policies.p]\ngrants = [{domain = "*", ports = "*"}]\n'
            + listener.format("one") + f'upstream = "{own.remote}"\n'
            + path.format("a", of_path.remote) + path.format("b", own.remote)
            + listener.format("two") + f'upstream = "{other.remote}"\n'
        )  # fmt: skip
        with Flashpol("-c", tmp_path / "flashpol.toml", listen=()) as server:
            for place, reached in zip(server.places, (own, other), strict=True):
                with connect(place, b"hello"), reached.accept() as session:
                    assert session.recv(5) == b"hello"
            assert of_path.has_no_connection()

            def started() -> dict[tuple[str, str], float]:
                metrics, routes = server.metrics(), (("one", own), ("one", of_path), ("two", other))
                return {
                    (name, str(each.remote)): metrics.total(
                        "relay_sessions_started_total", listener=name, upstream=str(each.remote)
                    )
                    for name, each in routes
                }

            expected = [1, 0, 1]
            eventually(lambda: [*started().values()] == expected, "the counters")
            text = server.get("/metrics").body.decode()
            assert text.count("flashpol_relay_sessions_started_total{") == 3, "an upstream that two name is one"
