"""How many local ports this host has, and whether its listeners' source addresses are its own."""

import dataclasses
import os
from ipaddress import ip_address
from pathlib import Path

import pytest

from flashpol.config import Address, Config, ConfigError, Listener, PolicySource, Server, UpstreamAddress
from flashpol.process.local_ports import LocalPorts, require_sources
from testkit.processes import as_nobody


def host(folder: Path, ports: str, reserved: str = "") -> LocalPorts:
    (folder / "ip_local_port_range").write_text(ports + "\n")
    (folder / "ip_local_reserved_ports").write_text(reserved + "\n")
    return LocalPorts.of_host(folder)


def test_local_ports_are_those_of_the_range(tmp_path: Path) -> None:
    ports = host(tmp_path, "32768\t60999")
    assert ports == LocalPorts()
    assert (ports.count, len(ports.odd), ports.odd[0], ports.odd[-1]) == (28_232, 14_116, 32_769, 60_999)


def test_local_ports_leave_out_reserved_ones(tmp_path: Path) -> None:
    ports = host(tmp_path, "100 109", "8,101,104-106,200-300")
    assert ports.count == 6
    assert list(ports.odd) == [103, 107, 109]


@pytest.mark.parametrize("text", ["", "many", "1", "1 2 3"])
def test_local_ports_without_a_readable_range_are_the_usual_ones(tmp_path: Path, text: str) -> None:
    assert host(tmp_path, text) == LocalPorts.of_host(tmp_path / "none") == LocalPorts()


def of_source(source: str) -> Config:
    listener = Listener(
        "games", Address("127.0.0.1", 0), "p", upstream=(UpstreamAddress("::1", 1),),
        upstream_source=(ip_address("127.0.0.1"), ip_address(source)),
    )  # fmt: skip
    return Config(Server(), (PolicySource("p", deny_all=True),), (listener,))


@pytest.mark.parametrize("source", ["127.0.0.2", "::1"])
def test_source_of_this_host_is_accepted(source: str) -> None:
    require_sources(of_source(source))


def of_clients() -> Config:
    [listener] = of_source("127.0.0.2").listeners
    return Config(Server(), (), (dataclasses.replace(listener, upstream_source="client"),))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has the right")
def test_client_as_source_takes_a_capability() -> None:
    require_sources(of_clients())
    refusal = as_nobody(lambda: require_sources(of_clients()))
    assert refusal.startswith('ConfigError: upstream_source = "client" takes the capability CAP_NET_RAW, which ')
    assert "\n" not in refusal


@pytest.mark.parametrize("source", ["192.0.2.1", "2001:db8::1"])
def test_source_of_another_host_is_refused_in_one_line(source: str) -> None:
    with pytest.raises(ConfigError) as caught:
        require_sources(of_source(source))
    assert str(caught.value) == f"upstream_source {source}: not an address of this host (`ip address` lists them)"
