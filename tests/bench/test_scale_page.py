"""docs/scale.md has the tables that the code makes of the figures and of the last measurement."""

import re
from pathlib import Path

import pytest

from bench import BenchError
from bench.scale import host_settings, tables
from bench.scale.host_settings import SETTINGS, Setting
from bench.scale.markdown import table

PAGE = tables.PAGE.read_text()
NEWER = {"net.ipv4.tcp_syn_linear_timeouts"}  # of Linux 6.5
AGAIN = "docs/scale.md is not up to date: run python -m bench.scale --write"


def test_page_has_every_table_once() -> None:
    assert sorted(tables.names_in(PAGE)) == sorted(tables.blocks())


@pytest.mark.parametrize("name", tables.quick_blocks())
def test_table_of_the_page_is_what_the_code_makes(name: str) -> None:
    assert tables.filled(PAGE, {name: tables.quick_blocks()[name]}) == PAGE, AGAIN


@pytest.mark.slow
@pytest.mark.parametrize("name", tables.fleet_blocks())
def test_simulated_table_of_the_page_is_what_the_code_makes(name: str) -> None:
    assert tables.filled(PAGE, {name: tables.fleet_blocks()[name]}) == PAGE, AGAIN


def test_page_is_wrapped() -> None:
    assert [line for line in PAGE.splitlines() if len(line) > 100 and not line.startswith("|")] == []


def test_filled_page_keeps_what_is_around_a_table() -> None:
    start = tables.START.format("x")
    assert tables.filled(f"before\n{start}old\n{tables.END}after\n", {"x": lambda: "new\n"}) == (
        f"before\n{start}\nnew\n\n{tables.END}after\n"
    )


def test_filled_page_without_a_place_for_a_table_is_an_error() -> None:
    with pytest.raises(BenchError, match="has no place for a table"):
        tables.filled("text\n", {"x": lambda: "new\n"})


def test_table_aligns_numbers_and_leaves_empty_cells() -> None:
    assert table(["", "each"], [["a", "1"], ["b", ""]]) == "| | each |\n|---|--:|\n| a | 1 |\n| b | |\n"


@pytest.mark.parametrize("setting", [one for one in SETTINGS if one.is_sysctl], ids=lambda one: one.name)
def test_sysctl_of_the_page_is_one_of_this_kernel(setting: Setting) -> None:
    if setting.name.startswith("net.netfilter.") and not Path("/proc/sys/net/netfilter/nf_conntrack_max").exists():
        pytest.skip("nf_conntrack is not loaded")
    assert host_settings.path_of(setting.name).exists()


@pytest.mark.parametrize("setting", [one for one in SETTINGS if not one.is_sysctl], ids=lambda one: one.name)
def test_file_of_the_page_is_one_of_this_kernel(setting: Setting) -> None:
    if not any(Path("/").glob(re.sub(r"[^/]*\*.*", "*", setting.name[1:]))):
        pytest.skip("this machine has no such devices")
    assert any(Path("/").glob(setting.name[1:]))


def test_sysctls_that_the_text_names_are_of_this_kernel() -> None:
    text = re.sub(rf"{re.escape(tables.START.format('settings'))}.*?{re.escape(tables.END)}", "", PAGE, flags=re.S)
    names = set(re.findall(r"`((?:net\.core|net\.ipv4|fs)\.[\w.-]+)`", text))
    assert len(names) > 3
    assert [name for name in sorted(names - NEWER) if not host_settings.path_of(name).exists()] == []
