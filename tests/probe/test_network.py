"""Names with addresses of both families, and networks that misbehave: real packets between two network namespaces."""

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from broken import OPEN_POLICY, POLICY, answering
from loopback import Server
from network import DROPPED, FAR, NO_ROUTE, PROHIBITED, UNREACHABLE, Network

ALIKE, ONE_REFUSES, DIFFERENT, LARGE = FAR[:4]
# More than two segments of 1,448 bytes, in one write.
LARGE_POLICY = POLICY.replace(b"><a", b">" + b" " * 3000 + b"<a")
SERVERS = [
    *((address, POLICY) for address in ALIKE),
    (ONE_REFUSES[0], POLICY),
    (DIFFERENT[0], POLICY),
    (DIFFERENT[1], OPEN_POLICY),
    *((address, LARGE_POLICY) for address in LARGE),
]
# Name -> its addresses -> what is found there.
HOSTS: dict[str, tuple[tuple[str, ...], set[str]]] = {
    "alike.example": (ALIKE, set()),
    "refused.example": (ONE_REFUSES, {"PB105", "PB106", "PB109"}),
    "different.example": (DIFFERENT, {"PB109"}),
    "large.example": (LARGE, {"PB213"}),
    "dropped.example": ((ALIKE[0], DROPPED[1]), {"PB102", "PB106", "PB109"}),
    "unreachable.example": ((ALIKE[0], UNREACHABLE[1]), {"PB103", "PB109"}),
    "prohibited.example": ((PROHIBITED[0], ALIKE[1]), {"PB103", "PB109"}),
    "no-route.example": ((ALIKE[0], NO_ROUTE[1]), {"PB104"}),
    "all-dropped.example": (DROPPED, {"PB102", "PB106"}),
    "all-unreachable.example": (UNREACHABLE, {"PB103"}),
    "nowhere.example": (NO_ROUTE, {"PB104"}),
}

pytestmark = pytest.mark.slow  # each test makes network namespaces


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    with ExitStack() as stack:
        names = {name: addresses for name, (addresses, _) in HOSTS.items()}
        network = stack.enter_context(Network(tmp_path_factory.mktemp("network"), names))
        with network.at_the_far_end():
            for address, policy in SERVERS:
                stack.enter_context(Server(answering(policy + b"\0"), address, 843))
        yield network


@pytest.fixture(scope="module")
def probed(network: Network) -> dict[str, Any]:
    """All of them in one run, which takes no longer than the slowest."""
    done = network.flashpol("probe", *HOSTS, "--json", "--ignore", "PB110")
    assert (done.returncode, done.stderr) == (1, "")
    return {host["host"]: host for host in json.loads(done.stdout)["hosts"]}


def codes(host: dict[str, Any]) -> set[str]:
    return {finding["code"] for finding in host["findings"] if finding["code"].startswith("PB")}


@pytest.mark.parametrize("name", HOSTS)
def test_findings_of_name_are_expected(probed: dict[str, Any], name: str) -> None:
    addresses, expected = HOSTS[name]
    assert {address["address"] for address in probed[name]["addresses"]} == {*addresses}
    assert codes(probed[name]) == expected


def finding(host: dict[str, Any], code: str) -> dict[str, Any]:
    return next(found for found in host["findings"] if found["code"] == code)


def test_addresses_differ_finding_names_the_differences(probed: dict[str, Any]) -> None:
    evidence = finding(probed["different.example"], "PB109")["evidence"]
    for address, policy in zip(DIFFERENT, (POLICY, OPEN_POLICY), strict=True):
        assert f"{address}: a policy of {len(policy)} bytes" in evidence
    evidence = finding(probed["refused.example"], "PB109")["evidence"]
    assert f"{ONE_REFUSES[1]}: refused" in evidence
    assert finding(probed["refused.example"], "PB105")["where"] == f"[{ONE_REFUSES[1]}]:843"


def test_conclusions_of_both_families_differ_for_unity(probed: dict[str, Any]) -> None:
    found = {
        (address["family"], client["client"]): client["finds_policy"]
        for address in probed["alike.example"]["addresses"]
        for client in address["clients"]
    }
    assert [found["ipv4", client] for client in ("flash", "lightspark", "unity")] == [True, True, True]
    assert [found["ipv6", client] for client in ("flash", "lightspark", "unity")] == [True, True, False]


def test_findings_of_untried_name_are_no_errors(probed: dict[str, Any]) -> None:
    host = probed["nowhere.example"]
    assert (host["ok"], {f["evidence"] for f in host["findings"]}) == (True, {"Network is unreachable"})


@pytest.mark.parametrize(
    ("name", "status", "word"),
    [
        ("alike.example", 0, "OK"),
        ("different.example", 1, "WARNING"),
        ("refused.example", 2, "CRITICAL"),
        ("nowhere.example", 3, "UNKNOWN"),
    ],
)
def test_nagios_of_name_has_status(network: Network, name: str, status: int, word: str) -> None:
    done = network.flashpol("probe", name, "--nagios", "--ignore", "PB110")
    assert (done.returncode, done.stderr, done.stdout.count("\n")) == (status, "", 1)
    assert done.stdout.startswith(f"FLASHPOL {word} - {name}: ")


def test_large_policy_in_one_write_has_three_segments(probed: dict[str, Any]) -> None:
    targets = [address["places"][0] for address in probed["large.example"]["addresses"]]
    assert [target["asked"]["segments"] for target in targets] == [3, 3]
    said = " ".join(found["message"] for found in probed["large.example"]["findings"] if found["code"] == "PB213")
    # Of Ethernet's 1,500 bytes, 40 go to the headers of IPv4 and 60 to those of IPv6, 12 to TCP's timestamps.
    assert {*re.findall(r"a segment of (\S+) bytes", said)} == {"1,448", "1,428"}
