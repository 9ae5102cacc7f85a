"""Reload: open connections finish, nothing is lost, no counter goes back, and a bad configuration changes nothing."""

import json
import os
import pty
import select
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from bench import build
from testkit.clients import REQUEST, ask, connect, rest, until_end
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol, command, descriptors, free_port, hanging_load, listening, status

POLICY = '<cross-domain-policy><allow-access-from domain="{}" to-ports="1935"/></cross-domain-policy>'
CONFIG = "[server]\nreload_endpoint = true\nshutdown_timeout = 4\nstall_timeout = 0\n"


def reply(domain: str) -> bytes:
    return POLICY.format(domain).encode() + b"\0"


class Site:
    """A configuration file and a policy file, and a server that runs them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.policy, self.config = folder / "policy.xml", folder / "flashpol.toml"
        self.allow("one.example")
        self.configure()

    def allow(self, domain: str) -> None:
        self.policy.write_text(POLICY.format(domain))

    def configure(self, more: str = "", server: str = "") -> None:
        self.config.write_text(f'{CONFIG}{server}\n[policies.main]\nfile = "policy.xml"\n{more}')

    def serve(self, *arguments: str, **options: object) -> Flashpol:
        return Flashpol("-c", self.config, *arguments, **options)  # type: ignore[arg-type]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def reloads(server: Flashpol) -> int:
    return server.log.count(" reloaded: ") + server.log.count("not reloaded")


def reload(server: Flashpol) -> bool:
    """SIGHUP, and wait. True if it was accepted."""
    before = reloads(server)
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: reloads(server) == before + 1, "the reload")
    return server.metrics().total("config_last_reload_successful") == 1


def listener(name: str, port: int, host: str = "127.0.0.1") -> str:
    return f'[[listeners]]\nname = "{name}"\naddress = "{host}:{port}"\n'


# ------------------------------------------------------------------------------------------------- what is served then


def test_reload_of_a_new_policy_serves_it_by_new_workers_and_totals_go_on(site: Site) -> None:
    with site.serve(workers=2) as server:
        assert [ask(server.place) for _ in range(20)] == [reply("one.example")] * 20
        before, stamp = server.workers, server.metrics().total("config_last_reload_success_timestamp_seconds")
        site.allow("two.example")
        assert reload(server)
        assert [ask(server.place) for _ in range(20)] == [reply("two.example")] * 20
        eventually(lambda: not any(worker.alive for worker in before), "the end of the old workers")
        metrics = server.metrics()
        assert metrics.total("replies_total") == metrics.total("connections_accepted_total") == 40
        server.counts(0, "worker_restarts_total")
        assert metrics.total("config_last_reload_success_timestamp_seconds") >= stamp
        assert server.stop() == 0
        assert "ERROR" not in server.log


def test_connections_open_at_a_reload_are_finished_with_the_old_policy(site: Site) -> None:
    with site.serve() as server:
        begun = connect(server.place, REQUEST[:10])
        eventually(lambda: server.metrics().total("parked_connections") == 1, "half a request")
        site.allow("two.example")
        assert reload(server)
        assert ask(server.place) == reply("two.example")
        eventually(lambda: server.metrics().total("draining_workers") == 1, "the old worker in the metrics")
        server.counts(1, "connections_open")
        begun.sendall(REQUEST[10:])
        assert rest(begun) == reply("one.example")
        eventually(lambda: server.metrics().total("draining_workers") == 0, "its end")
        server.counts(2, "replies_total")


@pytest.mark.slow
@pytest.mark.parametrize("text", ["<cross-domain-policy>", POLICY.format("“one.example”"), ""])
def test_reload_of_a_bad_policy_changes_nothing(site: Site, text: str) -> None:
    with site.serve() as server:
        workers = server.workers
        site.policy.write_text(text)
        assert not reload(server)
        assert ask(server.place) == reply("one.example")
        assert server.workers == workers
        server.logs("not reloaded, the running configuration stays in effect: ")
        site.allow("two.example")
        assert reload(server)
        assert ask(server.place) == reply("two.example")


def test_reload_of_a_bad_configuration_changes_nothing(site: Site) -> None:
    with site.serve() as server:
        for server_lines in ("workers = 0", "nonsense = 1", 'user = "nobody-of-that-name"', "]"):
            site.configure(server=server_lines)
            assert not reload(server)
            assert ask(server.place) == reply("one.example")
        site.config.unlink()
        assert not reload(server)
        server.logs("cannot be read")
        assert "Traceback" not in server.log


@pytest.mark.parametrize("name", ["policy", "config"])
def test_reload_of_a_fifo_is_refused_in_one_line(site: Site, name: str) -> None:
    with site.serve() as server:
        file = getattr(site, name)
        text = file.read_text()
        file.unlink()
        os.mkfifo(file)
        assert not reload(server)
        line = server.log.splitlines()[-1]
        assert "not reloaded, the running configuration stays in effect: " in line
        assert f"{file}: is a FIFO; write a regular file" in line
        assert ask(server.place) == reply("one.example")
        file.unlink()
        file.write_text(text)
        assert reload(server)


# ------------------------------------------------------------------------------------------------ a load that hangs


def hang(site: Site, server: Flashpol) -> None:
    """SIGHUP, and wait until the load hangs."""
    (site.folder / "hang").touch()
    server.process.send_signal(signal.SIGHUP)
    eventually((site.folder / "hanging").exists, "the load")


def test_load_that_hangs_is_given_up_after_load_timeout(site: Site) -> None:
    prelude = "import flashpol.supervisor.reload as reload; reload.LOAD_TIMEOUT = 1.0"
    with site.serve(prelude=prelude + hanging_load(site.folder)) as server:
        children = set(server.children)
        hang(site, server)
        [loader] = set(server.children) - children
        eventually(lambda: reloads(server) == 1, "the time limit")
        server.logs("not reloaded, the running configuration stays in effect: loading takes longer than 1 s")
        eventually(lambda: not loader.alive, "the end of its process")
        assert ask(server.place) == reply("one.example")
        (site.folder / "hang").unlink()
        assert reload(server)


def test_sigterm_while_a_load_hangs_stops_the_server(site: Site) -> None:
    with site.serve(prelude=hanging_load(site.folder)) as server:
        hang(site, server)
        children = server.children
        assert server.stop() == 0
        assert not any(child.alive for child in children)
        assert "Traceback" not in server.log


@pytest.mark.slow
def test_worker_killed_while_a_load_hangs_is_replaced(site: Site) -> None:
    with site.serve(prelude=hanging_load(site.folder)) as server:
        hang(site, server)
        [worker] = server.workers
        worker.kill()
        eventually(lambda: server.up == 1 and server.workers != [worker], "its successor")
        assert ask(server.place) == reply("one.example")
        assert reloads(server) == 0


def test_arbiter_killed_while_a_load_hangs_leaves_no_process(site: Site) -> None:
    with site.serve(prelude=hanging_load(site.folder)) as server:
        hang(site, server)
        children = server.children
        assert len(children) == 3
        server.process.kill()
        eventually(lambda: not any(child.alive for child in children), "the end of all")


def test_process_that_loads_and_is_killed_refuses_the_reload(site: Site) -> None:
    with site.serve(prelude=hanging_load(site.folder)) as server:
        children = set(server.children)
        hang(site, server)
        [loader] = set(server.children) - children
        loader.kill()
        eventually(lambda: reloads(server) == 1, "the refusal")
        server.logs("the process that loads it was killed by SIGKILL")
        (site.folder / "hang").unlink()
        assert reload(server)


@pytest.mark.slow
def test_process_that_loads_and_is_stopped_and_continued_finishes_the_load(site: Site) -> None:
    """Ctrl-Z and fg do that to all processes of a terminal's foreground group."""
    with site.serve(prelude=hanging_load(site.folder)) as server:
        children = set(server.children)
        hang(site, server)
        [loader] = set(server.children) - children
        loader.kill(signal.SIGSTOP)
        eventually(lambda: status(loader.pid)["State"].startswith("T"), "the stop")
        assert ask(server.place) == reply("one.example")
        loader.kill(signal.SIGCONT)
        site.allow("two.example")
        (site.folder / "hang").unlink()
        eventually(lambda: reloads(server) == 1, "the reload")
        assert ask(server.place) == reply("two.example")
        assert "ERROR" not in server.log


def test_process_that_loads_holds_no_socket_of_the_server(site: Site) -> None:
    """A copy of a listen socket would keep a queue alive; a copy of a control socket, a child."""
    with site.serve(prelude=hanging_load(site.folder)) as server:
        children = set(server.children)
        hang(site, server)
        [loader] = set(server.children) - children
        assert [name for name in descriptors(loader.pid) if name.startswith("socket:")] == []


def test_warnings_of_a_reloaded_policy_are_logged_once(site: Site) -> None:
    with site.serve() as server:
        site.policy.write_text(POLICY.format("*").replace("1935", "*"))
        assert reload(server)
        warnings = [line for line in server.complaints if "WARNING" in line]
        assert len(warnings) == len({line.partition("WARNING")[2] for line in warnings}) > 0
        assert all(" loader[" in line for line in warnings)


def test_reload_with_denied_networks_refuses_their_clients(site: Site) -> None:
    """Their tables are compiled by the process that loads."""
    port = free_port()
    site.configure(listener("one", port))
    with site.serve(listen=()) as server:
        assert ask(server.place) == reply("one.example")
        site.configure(listener("one", port) + 'deny_networks = ["127.0.0.0/8"]\n')
        assert reload(server)
        assert until_end(connect(server.place))[0] == b""


def test_reload_keeps_flags_above_the_file(site: Site) -> None:
    with site.serve("--workers", "2", workers=None) as server:
        site.configure(server="workers = 1")
        assert reload(server)
        assert len(server.workers) == 2


# --------------------------------------------------------------------------------------- listeners, workers, addresses


def test_reload_adds_and_removes_listeners(site: Site) -> None:
    one, two, three = (free_port() for _ in range(3))
    site.configure(listener("one", one) + listener("two", two))
    with site.serve(listen=()) as server:
        assert ask(("127.0.0.1", two)) == reply("one.example")
        site.configure(listener("three", three) + listener("two", two))
        assert reload(server)
        assert ask(("127.0.0.1", two)) == ask(("127.0.0.1", three)) == reply("one.example")
        with pytest.raises(ConnectionRefusedError):
            ask(("127.0.0.1", one))
        metrics = server.metrics()
        server.counts(2, "replies_total", listener="two")  # also what was counted under another number
        server.counts(1, "replies_total", listener="three")
        assert "one" not in {dict(labels).get("listener") for _, labels in metrics}
        assert server.stop() == 0


def test_queue_of_a_removed_listener_is_served(site: Site) -> None:
    one, two = free_port(), free_port()
    site.configure(listener("one", one) + listener("two", two))
    with site.serve(listen=()) as server:
        [worker] = eventually(lambda: server.workers, "the worker")
        worker.kill(signal.SIGSTOP)
        waiting = [connect(("127.0.0.1", one), REQUEST) for _ in range(10)]
        site.configure(listener("two", two))
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.metrics().total("draining_workers") == 1, "the next worker")
        worker.kill(signal.SIGCONT)
        assert [rest(connection) for connection in waiting] == [reply("one.example")] * 10
        eventually(lambda: "reloaded:" in server.log, "the reload")


def test_reload_with_an_address_that_cannot_be_bound_changes_nothing(site: Site) -> None:
    one, two = free_port(), free_port()
    site.configure(listener("one", one))
    with site.serve(listen=()) as server:
        before = listening(server.process.pid)
        site.configure(listener("one", one) + listener("new", two) + listener("taken", server.admin_place[1]))
        assert not reload(server)
        server.logs("in use")
        site.configure(listener("one", one) + listener("new", two) + listener("foreign", two, "192.0.2.1"))
        assert not reload(server)
        server.logs("not an address of this host")
        assert listening(server.process.pid) == before, "what was bound before the mistake is closed again"
        assert ask(("127.0.0.1", one)) == reply("one.example")


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (2, 5)])
def test_reload_with_another_number_of_workers_loses_no_queue(site: Site, before: int, after: int) -> None:
    site.configure(server=f"workers = {before}")
    with site.serve(workers=None) as server:
        old = server.workers
        for worker in old:
            worker.kill(signal.SIGSTOP)
        waiting = [connect(server.place, REQUEST) for _ in range(30)]
        site.configure(server=f"workers = {after}")
        server.process.send_signal(signal.SIGHUP)
        assert [rest(connection) for connection in waiting] == [reply("one.example")] * 30, "by the new ones alone"
        assert reloads(server) == 0, "the old ones do not accept no more yet, for all that is known"
        for worker in old:
            worker.kill(signal.SIGCONT)
        eventually(lambda: reloads(server) == 1, "the reload")
        eventually(lambda: server.up == after, "all workers")
        assert [ask(server.place) for _ in range(50)] == [reply("one.example")] * 50
        server.counts(80, "replies_total")
        assert server.stop() == 0


@pytest.mark.slow
def test_reload_moves_and_removes_the_admin_endpoint(site: Site) -> None:
    first, second = free_port(), free_port()
    site.configure(server=f'admin = "127.0.0.1:{first}"')
    with site.serve(admin=None) as server:
        assert server.admin_place[1] == first
        site.configure(server=f'admin = "127.0.0.1:{second}"')
        server.process.send_signal(signal.SIGHUP)
        server.url = f"http://127.0.0.1:{second}/metrics"
        eventually(lambda: "reloaded:" in server.log, "the reload")
        assert server.get("/-/ready").status == 200
        site.configure(server='admin = "off"')
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: server.log.count(" reloaded: ") == 2, "the second reload")
        eventually(lambda: second not in listening(server.process.pid).values(), "the end of the endpoint")
        assert ask(server.place) == reply("one.example")


@pytest.mark.slow
def test_listener_with_its_own_request_timeout_uses_it(site: Site) -> None:
    quick, slow = free_port(), free_port()
    site.configure(listener("quick", quick) + "request_timeout = 0.2\n" + listener("slow", slow))
    with site.serve(listen=()) as server:
        patient, silent = connect(("127.0.0.1", slow)), connect(("127.0.0.1", quick))
        assert rest(silent) == b""
        server.counts(1, "timeouts_total", listener="quick")
        patient.sendall(REQUEST)
        assert rest(patient) == reply("one.example")


# ---------------------------------------------------------------------------------------------------- under load


@pytest.mark.slow
def test_reload_every_100_ms_under_load_loses_no_reply(site: Site, tmp_path: Path) -> None:
    expected = tmp_path / "expected"
    expected.write_bytes(reply("one.example"))
    with site.serve(workers=2) as server:
        arguments = ["--port", str(server.place[1]), "--expect", str(expected), "--connections", "64"]
        load = subprocess.Popen(
            [str(build.load_generator()), "closed", *arguments, "--count", str(10**9), "--seconds", "5"],
            stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert load.stdout
        with load.stdout:
            last = 0.0
            while load.poll() is None:
                server.process.send_signal(signal.SIGHUP)
                time.sleep(0.1)  # the interval is the subject
                last, before = server.metrics().total("replies_total"), last
                assert last >= before, "a counter went back"
            said = json.loads(load.stdout.read())
        assert (said["failed"], load.returncode) == (0, 0), said
        assert said["ok"] == said["started"] > 1000
        assert server.log.count(" reloaded: ") > 2
        eventually(lambda: server.metrics().total("draining_workers") == 0, "the end of the old workers")
        server.counts(said["ok"], "replies_total")
        assert server.stop() == 0
        assert "ERROR" not in server.log


@pytest.mark.slow
def test_reloads_beyond_max_draining_wait_for_the_oldest(site: Site) -> None:
    """Each holds a silent client; the reloads that would make too many wait."""
    with site.serve() as server:
        silent = []
        for count in range(1, 8):
            silent.append(connect(server.place))
            eventually(lambda n=count: server.metrics().total("connections_accepted_total") >= n, "it is inside")
            server.process.send_signal(signal.SIGHUP)
            time.sleep(0.1)
            assert server.metrics().total("draining_workers") <= 3
        for client in silent:
            assert rest(client) == b""
        eventually(lambda: server.metrics().total("draining_workers") == 0, "their end")
        server.counts(7, "timeouts_total")


# ---------------------------------------------------------------------------------------------------- what fails

BROKEN = """
import flashpol.worker.worker as worker
real = worker.run
def run(slot, sockets, plan, shared, control):
    if b"two.example" in plan.replies[0] and slot == 1:
        raise RuntimeError("it does not start")
    real(slot, sockets, plan, shared, control)
worker.run = run
"""


@pytest.mark.slow
def test_generation_that_does_not_come_up_is_refused_and_served_no_client(site: Site) -> None:
    port = free_port()
    with site.serve("--workers", "2", workers=None, prelude=BROKEN) as server:
        workers = server.workers
        site.configure(listener("one", server.place[1]) + listener("new", port))
        site.allow("two.example")
        server.process.send_signal(signal.SIGHUP)
        answers = []
        while "not reloaded" not in server.log:
            answers.append(ask(server.place))
        assert set(answers) == {reply("one.example")}, "the refused policy was served"
        server.counts(len(answers), "replies_total")
        eventually(lambda: server.metrics().total("draining_workers") == 0, "its workers' end")
        assert [ask(server.place) for _ in range(20)] == [reply("one.example")] * 20
        server.counts(0, "config_last_reload_successful")
        assert server.workers == workers
        server.logs("it does not start")
        site.allow("three.example")
        assert reload(server)
        assert ask(server.place) == reply("three.example")
        assert server.stop() == 0


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.05, 0.2])
def test_sigterm_during_a_reload_finishes_open_connections(site: Site, delay: float) -> None:
    with site.serve() as server:
        begun = connect(server.place, REQUEST[:10])
        eventually(lambda: server.metrics().total("parked_connections") == 1, "half a request")
        server.process.send_signal(signal.SIGHUP)
        time.sleep(delay)  # somewhere in the reload
        server.process.send_signal(signal.SIGTERM)
        begun.sendall(REQUEST[10:])
        assert rest(begun) == reply("one.example")
        assert server.process.wait(DEADLINE) == 0
        assert "Traceback" not in server.log


@pytest.mark.slow
def test_old_worker_that_hangs_is_killed(site: Site) -> None:
    site.configure(server="")
    site.config.write_text(site.config.read_text().replace("shutdown_timeout = 4", "shutdown_timeout = 0.2"))
    with site.serve() as server:
        [old] = server.workers
        old.kill(signal.SIGSTOP)
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: not old.alive, "its end")
        assert ask(server.place) == reply("one.example")


@pytest.mark.slow
def test_old_admin_process_that_hangs_is_killed(site: Site) -> None:
    site.config.write_text(site.config.read_text().replace("shutdown_timeout = 4", "shutdown_timeout = 0.2"))
    with site.serve() as server:
        old = server.admin
        assert old
        old.kill(signal.SIGSTOP)
        assert reload(server)
        assert not old.alive


# ---------------------------------------------------------------------------------------------------- over HTTP


def test_http_reload_returns_the_outcome(site: Site) -> None:
    with site.serve() as server:
        site.allow("two.example")
        assert (server.get("/-/reload", "POST").status, ask(server.place)) == (200, reply("two.example"))
        site.policy.write_text("<nonsense/>")
        answer = server.get("/-/reload", "POST")
        assert answer.status == 500
        assert answer.body.startswith(b"the running configuration stays: ")
        assert str(site.policy).encode() in answer.body
        assert ask(server.place) == reply("two.example")
        assert (server.get("/-/reload").status, server.get("/-/reload").headers["Allow"]) == (405, "POST")


@pytest.mark.slow
def test_status_after_a_reload_shows_the_new_workers(site: Site) -> None:
    """Not by the admin process that was replaced, which knows nothing of the new workers. Here it is late to let go."""
    with site.serve() as server:
        [before], old = server.workers, server.admin
        assert old
        old.kill(signal.SIGSTOP)
        server.process.send_signal(signal.SIGHUP)
        eventually(lambda: not before.alive, "the end of the old worker")
        assert reloads(server) == 0
        old.kill(signal.SIGCONT)
        eventually(lambda: reloads(server) == 1, "the reload")
        [worker] = json.loads(server.get("/-/status").body)["workers"]
        assert worker["pid"] not in (0, before.pid)


@pytest.mark.slow
def test_http_reload_that_takes_long_returns_202(site: Site) -> None:
    prelude = "import flashpol.admin.endpoint as endpoint; endpoint.RELOAD_PATIENCE = 0.1"
    with site.serve(prelude=prelude + hanging_load(site.folder)) as server:
        (site.folder / "hang").touch()
        answer = server.get("/-/reload", "POST")
        assert (answer.status, answer.body[:12]) == (202, b"not done yet")
        (site.folder / "hang").unlink()
        eventually(lambda: "reloaded" in server.log, "the reload")
        server.counts(1, "config_last_reload_successful")


@pytest.mark.slow
@pytest.mark.parametrize("asked", ["before", "after"])
def test_http_reload_of_a_server_that_drains_is_refused_at_once(site: Site, asked: str) -> None:
    site.configure(server="drain_timeout = 60")
    site.config.write_text(
        site.config.read_text() + '[[listeners]]\npolicy = "main"\naddress = "127.0.0.1:0"\nupstream = "127.0.0.1:9"\n'
    )
    with site.serve(listen=(), prelude=hanging_load(site.folder)) as server, connect(server.place, REQUEST[:10]):
        eventually(lambda: server.metrics().total("connections_open") == 1, "a connection to wait for")
        answers = []
        if asked == "before":
            (site.folder / "hang").touch()
            asking = threading.Thread(target=lambda: answers.append(server.get("/-/reload", "POST")))
            asking.start()
            eventually((site.folder / "hanging").exists, "the load")
        server.process.send_signal(signal.SIGQUIT)
        eventually(lambda: "SIGQUIT: draining" in server.log, "the signal")
        eventually(lambda: json.loads(server.get("/-/status").body)["state"] == "draining", "the state")
        if asked == "before":
            asking.join(DEADLINE)
        else:
            answers.append(server.get("/-/reload", "POST"))
        [answer] = answers
        # 500: the load that was asked for was given up.
        assert answer.status == 503 or (asked == "before" and answer.status == 500)
        assert b"the server is stopping" in answer.body


@pytest.mark.slow
def test_http_reload_without_the_setting_is_forbidden(site: Site) -> None:
    site.config.write_text(site.config.read_text().replace("reload_endpoint = true", ""))
    with site.serve() as server:
        answer = server.get("/-/reload", "POST")
        assert answer.status == 403
        assert b"reload_endpoint = true" in answer.body
        assert reloads(server) == 0


# ---------------------------------------------------------------------------------------------------- watched files


@pytest.fixture
def watching(site: Site) -> Iterator[tuple[Site, Flashpol]]:
    site.configure(server="watch = 0.1")
    with site.serve() as server:
        yield site, server
        assert server.stop() == 0


def test_watched_file_that_changes_is_served(watching: tuple[Site, Flashpol]) -> None:
    site, server = watching
    site.allow("two.example")
    eventually(lambda: ask(server.place) == reply("two.example"), "the new policy")
    fresh = site.policy.with_name("fresh")
    fresh.write_text(POLICY.format("three.example"))
    fresh.rename(site.policy)
    eventually(lambda: ask(server.place) == reply("three.example"), "the renamed policy")
    other = site.policy.with_name("other.xml")
    other.write_text(POLICY.format("four.example"))
    site.config.write_text(site.config.read_text().replace('"policy.xml"', '"other.xml"'))
    eventually(lambda: ask(server.place) == reply("four.example"), "another file")
    other.write_text(POLICY.format("five.example"))
    eventually(lambda: ask(server.place) == reply("five.example"), "a change of the other file")
    eventually(lambda: reloads(server) == 4, "as many reloads as changes")


@pytest.mark.slow
def test_bad_watched_file_is_logged_once_and_a_touch_is_no_change(watching: tuple[Site, Flashpol]) -> None:
    site, server = watching
    site.policy.write_text("<nonsense>")
    eventually(lambda: reloads(server) == 1, "the refusal")
    for _ in range(5):
        os.utime(site.policy)
        time.sleep(0.25)  # at least two looks
    assert reloads(server) == 1
    server.counts(0, "config_last_reload_successful")
    site.allow("one.example")
    eventually(lambda: server.metrics().total("config_last_reload_successful") == 1, "well again")


@pytest.mark.slow
def test_file_of_a_refused_configuration_is_watched(watching: tuple[Site, Flashpol]) -> None:
    site, server = watching
    missing = site.policy.with_name("missing.xml")
    site.config.write_text(site.config.read_text().replace('"policy.xml"', '"missing.xml"'))
    eventually(lambda: reloads(server) == 1, "the refusal")
    missing.write_text(POLICY.format("six.example"))
    eventually(lambda: ask(server.place) == reply("six.example"), "the file that was missing")


@pytest.mark.slow
def test_watched_file_that_is_being_loaded_is_loaded_once(site: Site) -> None:
    """The file has changed since the last load, and a load after SIGHUP that takes long reads it already."""
    site.configure(server="watch = 0.3")
    with site.serve(prelude=hanging_load(site.folder)) as server:
        site.allow("two.example")
        hang(site, server)
        time.sleep(1.5)  # at least two looks
        (site.folder / "hang").unlink()
        eventually(lambda: reloads(server) == 1, "the reload")
        time.sleep(1.0)
        assert reloads(server) == 1
        assert "a watched file has changed" not in server.log
        site.allow("three.example")
        eventually(lambda: ask(server.place) == reply("three.example"), "the next change")


@pytest.mark.slow
def test_watched_files_on_a_disk_that_hangs_hold_up_nothing_else(site: Site) -> None:
    site.configure(server="watch = 0.1")
    prelude = f"""
import pathlib, time
import flashpol.serving.file_watch as file_watch
import flashpol.supervisor.file_checks as file_checks
file_checks.CHECK_TIMEOUT = 1.0
real, folder = file_watch.signature, pathlib.Path({str(site.folder)!r})
def signature(paths):
    while (folder / "hang").exists():
        (folder / "hanging").touch()
        time.sleep(0.01)
    return real(paths)
file_watch.signature = signature
"""
    with site.serve(prelude=prelude) as server:
        (site.folder / "hang").touch()
        eventually((site.folder / "hanging").exists, "the disk that hangs")
        [worker] = server.workers
        worker.kill()
        eventually(lambda: server.workers not in ([], [worker]), "the successor")
        assert ask(server.place) == reply("one.example")
        eventually(lambda: "the watched files cannot be read for 1 s" in server.log, "the report")
        site.allow("two.example")
        (site.folder / "hang").unlink()
        eventually(lambda: ask(server.place) == reply("two.example"), "the new policy")
        assert server.stop() == 0


# ---------------------------------------------------------------------------------------------------- a terminal


def on_a_terminal(site: Site, *before: str) -> tuple["subprocess.Popen[bytes]", int]:
    """`flashpol serve` in the foreground of a terminal; its arbiter, and the other end of the terminal.

    Not by pty.fork: this process has threads, and Python code between fork and exec may wait for a lock of theirs.
    """
    terminal, foreground = pty.openpty()
    words = [*before, *command("serve", "-c", site.config, "--listen", "127.0.0.1:0", "--admin", "off")]
    process = subprocess.Popen(["setsid", "--ctty", *words], stdin=foreground, stdout=foreground, stderr=foreground)
    os.close(foreground)
    see(terminal, b"ready:")
    return process, terminal


def see(terminal: int, word: bytes) -> None:
    said = b""
    while word not in said:
        assert select.select([terminal], [], [], DEADLINE)[0], said
        said += os.read(terminal, 4096)


@pytest.mark.slow
def test_closed_terminal_stops_the_server(site: Site) -> None:
    process, terminal = on_a_terminal(site)
    os.close(terminal)
    process.wait(DEADLINE)


def test_sighup_on_an_open_terminal_reloads(site: Site) -> None:
    process, terminal = on_a_terminal(site)
    with closing(os.fdopen(terminal, "rb", buffering=0)):
        process.send_signal(signal.SIGHUP)
        see(terminal, b"reloaded")
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE)


@pytest.mark.slow
def test_closed_terminal_under_nohup_does_not_stop_the_server(site: Site, tmp_path: Path) -> None:
    process, terminal = on_a_terminal(site, "sh", "-c", 'trap "" HUP; exec "$@" 2>' + str(tmp_path / "log"), "sh")
    os.close(terminal)
    try:
        process.send_signal(signal.SIGHUP)
        eventually(lambda: "reloaded" in (tmp_path / "log").read_text(), "a reload")
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(DEADLINE)
