"""Loading: the snapshot that is watched is of the files that were read, or older."""

import dataclasses
import ipaddress
import os
import pickle
import signal
from pathlib import Path

import pytest

from flashpol.config import Address, Config, ConfigError, Listener, PolicySource, Server
from flashpol.serving.file_watch import FileWatch, Snapshot
from flashpol.serving.plan import Loader
from testkit.polling import eventually
from testkit.processes import Flashpol, free_port, one_line, run

POLICY = '<cross-domain-policy><allow-access-from domain="{}" to-ports="1935"/></cross-domain-policy>'


class Files:
    """A configuration file, whose text is the name of the one policy file; `read` is called when it has been read."""

    def __init__(self, folder: Path) -> None:
        self.config, self.folder = folder / "flashpol.toml", folder
        self.write("one", "one.example")
        self.config.write_text("one")
        self.reads = 0
        self.loader = Loader(self._configure, self.config)
        self.watch = FileWatch()

    def write(self, name: str, domain: str) -> None:
        (self.folder / name).write_text(POLICY.format(domain))

    def _configure(self) -> Config:
        name = self.config.read_text()
        self.reads += 1
        self.read()
        if not name:
            raise ConfigError("it is empty")
        source = PolicySource("main", file=self.folder / name)
        return Config(Server(), (source,), (Listener(None, Address("127.0.0.1", 0), "main"),))

    def read(self) -> None:
        pass

    @property
    def changed(self) -> bool:
        """As the second of two looks says, between which nothing happened."""
        return self.watch.changed() or self.watch.changed()


def test_load_watches_the_policy_that_it_read(tmp_path: Path) -> None:
    files = Files(tmp_path)
    assert b"one.example" in files.loader.load(files.watch.adopt).replies[0]
    assert not files.changed
    files.write("one", "changed.example")
    assert files.changed


def test_load_of_a_policy_that_changes_meanwhile_is_a_change(tmp_path: Path) -> None:
    files = Files(tmp_path)
    snapshots = 0

    def adopt(snapshot: Snapshot) -> None:
        nonlocal snapshots
        files.watch.adopt(snapshot)
        snapshots += 1
        if snapshots == 2:
            files.write("one", "changed.example")

    files.loader.load(adopt)
    assert files.changed


def test_load_of_a_configuration_that_changes_meanwhile_reads_it_again(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write("two", "two.example")
    files.read = lambda: files.config.write_text("two")  # type: ignore[method-assign, assignment, return-value]
    assert b"two.example" in files.loader.load(files.watch.adopt).replies[0]
    assert not files.changed
    assert list(files.watch.snapshot.paths) == [files.config, tmp_path / "two"]


def test_load_of_a_configuration_that_does_not_change_reads_it_once(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.loader.load(files.watch.adopt)
    assert files.reads == 1


def test_load_that_fails_is_no_change_until_the_file_changes(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.loader.load(files.watch.adopt)
    files.config.write_text("")
    try:
        files.loader.load(files.watch.adopt)
    except ConfigError:
        assert not files.changed
    files.config.write_text("one")
    assert files.changed


def test_plan_after_pickling_is_the_same_plan(tmp_path: Path) -> None:
    files = Files(tmp_path)
    allow, deny = (ipaddress.ip_network("10.0.0.0/8"),), (ipaddress.ip_network("10.1.0.0/16"),)
    configure = files.loader._configure
    files.loader._configure = lambda: dataclasses.replace(
        configure(),
        listeners=(dataclasses.replace(configure().listeners[0], allow_networks=allow, deny_networks=deny),),
    )
    plan = files.loader.load()
    copy = pickle.loads(pickle.dumps(plan))
    assert (copy.config, copy.replies, copy.privileges) == (plan.config, plan.replies, plan.privileges)
    assert copy.access == plan.access
    address = bytes(10) + b"\xff\xff"
    assert [bool(copy.access[0].networks.allow(address + ip)) for ip in (b"\n\2\0\0", b"\n\1\0\0")] == [True, False]


def test_load_of_a_fifo_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    files = Files(tmp_path)
    os.mkfifo(tmp_path / "pipe")
    files.config.write_text("pipe")
    with pytest.raises(ConfigError, match="pipe: is a FIFO; write a regular file"):
        files.loader.load()


@pytest.mark.parametrize("flag", ["--policy", "--config"])
def test_serve_with_a_fifo_ends_at_once_with_one_line(flag: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    done = run("serve", flag, tmp_path / "pipe", "--listen", "127.0.0.1:0", "--admin", "off")
    assert one_line(done).endswith(
        f"{tmp_path / 'pipe'}: is a FIFO; write a regular file, which a reload can read again"
    )


def reload(server: Flashpol) -> None:
    count = server.log.count("INFO: reloaded")
    server.process.send_signal(signal.SIGHUP)
    eventually(lambda: server.log.count("INFO: reloaded") > count, "the reload")


EXPOSED = "the admin endpoint listens on 0.0.0.0:{} and asks for no password"


def test_serve_from_a_source_address_of_another_host_ends_at_once_with_one_line(tmp_path: Path) -> None:
    file = tmp_path / "flashpol.toml"
    file.write_text(
        """[policies.p]\ndeny_all = true\n[[listeners]]\naddress = "127.0.0.1:0"\nupstream = "127.0.0.1:1"\n"""
        """upstream_source = "192.0.2.1"\n"""
    )
    done = run("serve", "-c", file)
    wrong = "upstream_source 192.0.2.1: not an address of this host (`ip address` lists them)"
    assert one_line(done).endswith(f"{file}:3:1: {wrong}")


def test_serve_with_an_admin_endpoint_that_other_hosts_reach_warns_once_it_serves() -> None:
    with Flashpol("--allow", "a.example:1", admin="0.0.0.0:0") as server:
        exposed = EXPOSED.format(server.admin_place[1])
        eventually(lambda: exposed in server.log, "the warning")
        assert server.log.index("INFO: ready") < server.log.index(exposed)
        assert (" WARNING: the workers run as root;" in server.log) is (os.geteuid() == 0)


def test_reload_that_exposes_the_admin_endpoint_warns_and_one_that_changes_nothing_does_not(tmp_path: Path) -> None:
    file, (one, other) = tmp_path / "flashpol.toml", (free_port(), free_port())
    text = '[server]\nadmin = "{}:{}"\n[policies.a]\ndeny_all = true\n[[listeners]]\naddress = "127.0.0.1:0"\n'
    file.write_text(text.format("127.0.0.1", one))
    with Flashpol("-c", file, listen=(), admin=None) as server:
        reload(server)
        assert server.complaints == []
        file.write_text(text.format("0.0.0.0", other))
        reload(server)
        [line] = server.complaints
        assert " loader[" in line
        assert EXPOSED.format(other) in line
