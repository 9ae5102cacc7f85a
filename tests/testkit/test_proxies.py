"""Proxies of the testkit: what is started is ended, also after an error, whose note has their logs."""

import os
import pwd

import pytest

from testkit.application import application
from testkit.processes import children
from testkit.programs import accepts, needs
from testkit.proxies import EACH, PROXIES, Running, chain

SERVER = ("127.0.0.1", 9)


@needs("haproxy", "tinyproxy")
def test_proxies_run_as_nobody_until_their_block_ends() -> None:
    before = children(os.getpid())
    with chain(SERVER, PROXIES["tinyproxy"], PROXIES["haproxy"]) as running:
        assert accepts(running.place)
        started = set(children(os.getpid())) - set(before)
        assert len(started) == 2
        if os.geteuid() == 0:
            nobody = pwd.getpwnam("nobody").pw_uid
            assert {os.stat(f"/proc/{process.pid}").st_uid for process in started} == {nobody}
    assert not accepts(running.place)
    assert not any(process.alive for process in started)


@needs("haproxy")
def test_error_in_the_block_has_the_log_of_the_proxy() -> None:
    with pytest.raises(ZeroDivisionError) as error, PROXIES["haproxy"].start(SERVER):
        _ = 1 / 0
    assert any("of haproxy" in note for note in error.value.__notes__)


@needs("tinyproxy")
def test_forward_proxy_has_the_address_of_the_server_in_the_uri() -> None:
    with application() as server, PROXIES["tinyproxy"].start((server.remote.host, server.remote.port)) as running:
        assert running.url == f"{server.remote.host}:{server.remote.port}"
        assert running.absolute == f"http://{running.url}"
        assert running.http_proxy == f"http://{running.place[0]}:{running.place[1]}"


def test_reverse_proxy_is_not_put_in_front_of_a_forward_proxy() -> None:
    behind = Running(SERVER, "http://127.0.0.1:9")
    with pytest.raises(AssertionError, match="haproxy is a reverse proxy"), PROXIES["haproxy"].start_before(behind):
        pass


def test_each_proxy_is_skipped_with_the_program_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    for parameter in EACH:
        [mark] = parameter.marks
        assert mark.kwargs["reason"].startswith("not installed: ")
    monkeypatch.setattr("testkit.programs.find", lambda _: None)
    assert needs("varnishd").kwargs["reason"] == "not installed: varnishd"
