"""flashpol status: the summary of a running server, and its exit status."""

import json
import signal
import socket
import threading
from pathlib import Path

import pytest

from flashpol.version import VERSION
from testkit.clients import ask
from testkit.polling import eventually
from testkit.processes import POLICY, Flashpol, free_port, one_line, run


def test_status_of_a_ready_server_is_a_summary() -> None:
    with Flashpol("--policy", POLICY, workers=2) as server:
        ask(server.place)
        done = run("status", "--admin", server.url.removesuffix("/metrics"))
        assert (done.returncode, done.stderr) == (0, "")
        lines = done.stdout.splitlines()
        assert lines[0] == f"flashpol {VERSION}: ready, 2 of 2 workers up"
        assert lines[1].startswith("configuration loaded at 20")
        [row] = [line.split() for line in lines if line.startswith(server.addresses[0])]
        assert row[:3] == [server.addresses[0], server.addresses[0], "1"]
        assert lines[-1] == "0 problems" or lines[-1].startswith("  warning: ")


def test_status_as_json_is_the_document_of_the_server() -> None:
    with Flashpol("--policy", POLICY) as server:
        done = run("status", "--json", "--admin", "{}:{}".format(*server.admin_place))
        assert json.loads(done.stdout).keys() == json.loads(server.get("/-/status").body).keys()


def test_status_of_a_server_with_a_problem_exits_with_1() -> None:
    with Flashpol("--policy", POLICY, "--upstream", f"127.0.0.1:{free_port()}") as server:
        admin = ("--admin", "{}:{}".format(*server.admin_place))
        with socket.create_connection(server.place) as client:
            client.sendall(b"hello")
            assert client.recv(1) == b""
        done = eventually(lambda: (found := run("status", *admin)).returncode == 1 and found, "a problem")
        assert "  error: 1 connection in the last minute was refused: no upstream could be reached." in done.stdout
        assert "UPSTREAM" in done.stdout


def test_status_after_a_failed_reload_says_why(tmp_path: Path) -> None:
    policy = tmp_path / "policy.xml"
    policy.write_bytes(POLICY.read_bytes())
    with Flashpol("--policy", policy) as server:
        policy.write_text("<cross-domain-policy>")
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: "not reloaded" in server.log, "the refusal")
        done = run("status", "--admin", "{}:{}".format(*server.admin_place))
        assert done.returncode == 1
        assert "  error: The last reload failed" in done.stdout
        assert f"{policy}:1:" in done.stdout


def test_status_without_a_server_is_one_line() -> None:
    message = one_line(run("status", "--admin", f"127.0.0.1:{free_port()}"), "flashpol status")
    assert message.endswith(": Connection refused: is a server running, and is this its admin address?")


@pytest.mark.parametrize("text", ["", "98", "127.0.0.1", "unix:/run/x", "http://"])
def test_status_of_a_bad_address_says_what_to_write(text: str) -> None:
    assert "write IP:PORT, such as 127.0.0.1:9843" in one_line(run("status", "--admin", text), "flashpol status")


ANSWERS = {
    b"HTTP/1.0 404 Not Found\r\n\r\n": "is not an admin address: HTTP status 404",
    b"hello\r\n": "is not an admin address: hello",
    b"": "Remote end closed connection",
    b"HTTP/1.0 200 OK\r\n\r\nhello": "/-/status is not that of this version of flashpol",
    b"HTTP/1.0 200 OK\r\n\r\n{}": "/-/status is not that of this version of flashpol",
    b'HTTP/1.0 200 OK\r\n\r\n{"format": 3}': "/-/status is not that of this version of flashpol (ValueError: format 3)",
    b'HTTP/1.0 200 OK\r\n\r\n{"format": 2}': "/-/status is not that of this version of flashpol (KeyError:",
    b"HTTP/1.0 200 OK\r\n\r\n\xff[]": "/-/status is not that of this version of flashpol",
}


@pytest.mark.parametrize(("answer", "words"), ANSWERS.items(), ids=repr)
def test_status_of_something_else_is_one_line(answer: bytes, words: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def serve() -> None:
            with other.accept()[0] as client:
                client.recv(1024)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        done = run("status", "--admin", f"127.0.0.1:{other.getsockname()[1]}")
        thread.join()
    assert words in one_line(done, "flashpol status")
