"""The entries of Ruffle's socketProxy, the script for the page, and why a page could not connect."""

import json
import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.config import Address, ConfigError, Listener, SystemdSocket, UpstreamAddress, WebSocketPath, type_of
from flashpol.gateway.origins import Origins
from flashpol.gateway.ruffle import Entry, PublicUrl, is_host, objections, origin_of, routes, script
from flashpol.policy import allow_policy, render
from testkit.examples import examples

HOST = "games.example.com"
UPSTREAM = (UpstreamAddress("127.0.0.1", 1),)


def listener(*paths: WebSocketPath, port: int = 7000, **more: object) -> Listener:
    return Listener(None, Address("0.0.0.0", port), "p", upstream=UPSTREAM, websocket=paths, **more)  # type: ignore[arg-type]


def entries(*listeners: Listener, hosts: tuple[str, ...] = (HOST,), url: str | None = None) -> list[tuple[int, str]]:
    found = routes(listeners, hosts, PublicUrl.parse(url) if url else None)
    return [(route.entry.port, route.entry.url) for route in found]


@pytest.mark.parametrize(
    ("made", "port", "url"),
    [
        (listener(WebSocketPath("*")), 7000, f"ws://{HOST}:7000/"),
        (listener(WebSocketPath("*"), port=80), 80, f"ws://{HOST}/"),
        (listener(WebSocketPath("*"), port=443), 443, f"ws://{HOST}:443/"),
        (listener(WebSocketPath("*"), port=443, tls=("c",)), 443, f"wss://{HOST}/"),
        (listener(WebSocketPath("*"), port=80, tls=("c",)), 80, f"wss://{HOST}:80/"),
        (listener(WebSocketPath("/chess", port=5555), tls=("c",)), 5555, f"wss://{HOST}:7000/chess"),
        (listener(WebSocketPath("*"), port=7000, served_from=443, tls=("c",)), 443, f"wss://{HOST}/"),
        (listener(WebSocketPath("*"), port=0, served_from=7001), 7001, f"ws://{HOST}:7001/"),
    ],
)
def test_entry_of_a_listener_has_the_port_of_content_and_the_url_of_browsers(
    made: Listener, port: int, url: str
) -> None:
    assert entries(made) == [(port, url)]


def test_entries_are_one_for_each_host_and_port() -> None:
    made = listener(WebSocketPath("/chess", port=7001), WebSocketPath("/go", port=7002))
    found = [route.entry for route in routes([made], ["a.example", "192.0.2.1", "2001:db8::1"])]
    assert found == [
        Entry("a.example", 7001, "ws://a.example:7000/chess"),
        Entry("a.example", 7002, "ws://a.example:7000/go"),
        Entry("192.0.2.1", 7001, "ws://192.0.2.1:7000/chess"),
        Entry("192.0.2.1", 7002, "ws://192.0.2.1:7000/go"),
        Entry("2001:db8::1", 7001, "ws://[2001:db8::1]:7000/chess"),
        Entry("2001:db8::1", 7002, "ws://[2001:db8::1]:7000/go"),
    ]


def test_entry_for_every_other_path_avoids_the_named_ones() -> None:
    paths = (WebSocketPath("/", port=1), WebSocketPath("/0", port=2), WebSocketPath("*"))
    assert [url for _, url in entries(listener(*paths))][-1] == f"ws://{HOST}:7000/1"


def test_listener_with_tls_is_taken_for_a_port_that_two_have() -> None:
    plain, encrypted = listener(WebSocketPath("*")), listener(WebSocketPath("*", port=7000), port=443, tls=("c",))
    other = listener(WebSocketPath("*"), port=6000)
    assert entries(other, plain, encrypted) == [(6000, f"ws://{HOST}:6000/"), (7000, f"wss://{HOST}/")]


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("wss://play.example.com", "wss://play.example.com/chess"),
        ("wss://play.example.com:443/", "wss://play.example.com/chess"),
        ("ws://play.example.com:8080/", "ws://play.example.com:8080/chess"),
        ("wss://play.example.com/a/b/", "wss://play.example.com/a/b/chess"),
        ("wss://[2001:db8::1]:444", "wss://[2001:db8::1]:444/chess"),
    ],
)
def test_url_of_a_proxy_in_front_replaces_name_and_port(url: str, found: str) -> None:
    assert entries(listener(WebSocketPath("/chess")), url=url) == [(7000, found)]


@pytest.mark.parametrize(
    "url",
    [
        "", "play.example.com", "https://play.example.com", "wss://", "wss:///a", "wss://a:0", "wss://a:65536",
       "wss://a b",         "wss://a/?b", "wss://a/#b", "wss://u@a", "wss://[::1", "wss://[a]", "wss://a\n", "wss://é",
    ],
)  # fmt: skip
def test_url_that_is_none_is_refused(url: str) -> None:
    with pytest.raises(ConfigError, match="is not where browsers connect: write wss://HOST"):
        PublicUrl.parse(url)


@pytest.mark.parametrize("address", [Address("0.0.0.0", 0), SystemdSocket("x")])
def test_listener_with_an_unknown_port_is_refused(address: Address | SystemdSocket) -> None:
    made = Listener("g", address, "p", upstream=UPSTREAM, websocket=(WebSocketPath("*", port=7001),))
    with pytest.raises(ConfigError, match=r"^listener g: its port is unknown before it is bound: set served_from$"):
        routes([made], [HOST])
    # Where browsers connect is known, and so is the port that content uses.
    assert entries(made, url="wss://a") == [(7001, "wss://a/")]


def test_hosts_are_names_and_addresses() -> None:
    assert all(map(is_host, ["a", "A.example", "127.0.0.1", "::1", "a_b.example.", "localhost"]))
    assert not any(map(is_host, ["", "a:1", "http://a", "a/b", "[::1]", "a b", "é", "fe80::1%eth0", "a" * 254, "*.a"]))


# ----------------------------------------------------------------------------------------------------------- the script

NODE = """
const text = require("fs").readFileSync(0, "utf8");
const code = text.slice("<script>".length, text.lastIndexOf("</script>"));
const results = [{}, {RufflePlayer: {config: {autoplay: "on", socketProxy: [1]}}}].map((window) => {
  new Function("window", code)(window);
  return window.RufflePlayer.config;
});
console.log(JSON.stringify(results));
"""


@pytest.mark.skipif(not shutil.which("node"), reason="no node here")
def test_script_sets_socket_proxy_and_keeps_other_settings() -> None:
    given_ = [Entry("a", 1, "ws://a:1/"), Entry("b", 2, "wss://b/it's$&")]
    done = subprocess.run(
        ["node", "-e", NODE], input=script(given_), capture_output=True, text=True, timeout=20, check=True
    )
    expected = [entry.as_setting for entry in given_]
    assert json.loads(done.stdout) == [{"socketProxy": expected}, {"autoplay": "on", "socketProxy": expected}]


def test_script_cannot_be_ended_by_a_value() -> None:
    assert script([Entry("</script>", 1, "")]).count("</script>") == 1


# ------------------------------------------------------------------------------------------------------------- the page


def why(
    origin: str, path: WebSocketPath, grants: str = "*.example.com:7000", url: str = "wss://a", **more: object
) -> list[str]:
    [route] = routes([listener(path, **more)], [HOST], PublicUrl.parse(url))
    return list(objections(route, render(allow_policy(["*.example.com:7000"])), origin))


@pytest.mark.parametrize(
    ("origin", "path"),
    [
        ("https://www.example.com", WebSocketPath("*")),
        ("http://www.example.com", WebSocketPath("*")),
        ("https://other.example", WebSocketPath("*", origins="any")),
        ("https://other.example:8443", WebSocketPath("*", origins=("https://other.example:8443",))),
    ],
)
def test_page_that_may_connect_has_no_objection(origin: str, path: WebSocketPath) -> None:
    assert why(origin, path) == []


def test_page_that_the_policy_refuses_is_told_so() -> None:
    [found] = why("https://other.example", WebSocketPath("/a"))
    assert found.startswith('wss://a/a: Origin "https://other.example" may not connect to port 7000: no grant is for ')
    assert found.endswith(": grant it in the policy")
    [found] = why("https://www.example.com", WebSocketPath("/a", port=7001))
    assert "port 7001 is not in to-ports" in found


def test_page_that_a_list_refuses_is_told_so() -> None:
    [found] = why("https://www.example.com", WebSocketPath("/a", origins=("https://b.example",)))
    assert found.endswith("origins lists others: add it to origins")


def test_page_over_https_is_told_that_ws_is_refused_except_on_its_own_host() -> None:
    page = "https://www.example.com"
    [found] = why(page, WebSocketPath("*"), url="ws://a")
    assert found.startswith("ws://a/: browsers let no page over https open a connection that is not encrypted: set tls")
    for url in ("wss://a", "ws://localhost", "ws://127.0.0.1:7000", "ws://[::1]:1"):
        assert why(page, WebSocketPath("*"), url=url) == []
    assert why("http://www.example.com", WebSocketPath("*"), url="ws://a") == []


@pytest.mark.parametrize(
    ("page", "origin"),
    [
        ("https://a.example", "https://a.example"),
        ("https://a.example/", "https://a.example"),
        ("http://a.example:8080/play/game.html?x=1#y", "http://a.example:8080"),
        ("null", "null"),
    ],
)
def test_origin_of_a_page_is_without_its_path(page: str, origin: str) -> None:
    assert origin_of(page) == origin


@pytest.mark.parametrize("page", ["", "a.example", "https://", "https://u:p@a/", "https://a b/", "https://é/", "/x"])
def test_page_that_is_no_url_is_refused(page: str) -> None:
    with pytest.raises(ConfigError, match=r"is not the origin of a page: write it as in https://games\.example\.com"):
        origin_of(page)


# A list of origins is read by the configuration, and used by the gateway.


@examples(200)
@given(st.text(st.sampled_from("ab.:*[]10-_"), min_size=1, max_size=12).map(lambda rest: f"https://{rest}"))
def test_every_origin_that_the_configuration_accepts_is_one_that_matches_something(text: str) -> None:
    try:
        origins = type_of(WebSocketPath, "origins").read("origins", [text])
    except ConfigError:
        return
    rule = Origins(b"", 1, rule=origins)
    [origin] = origins
    assert rule.judge([origin.replace("*.", "www.").encode()]).allowed
