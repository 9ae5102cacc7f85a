"""The address of a media server, and the ways that it means."""

import pytest

from flashpol.probe.rtmp import url
from flashpol.probe.rtmp.url import Way


@pytest.mark.parametrize(
    ("text", "ways", "written"),
    [
        ("a.example", "rtmp 1935, rtmp 443, rtmp 80, rtmpt 80", "rtmp://a.example"),
        ("rtmp://a.example/live", "rtmp 1935, rtmp 443, rtmp 80, rtmpt 80", "rtmp://a.example/live"),
        ("a.example:443", "rtmp 443", "rtmp://a.example:443"),
        ("rtmp://a.example:1935/live/room", "rtmp 1935", "rtmp://a.example:1935/live/room"),
        ("RTMPT://A.example/live/", "rtmpt 80", "rtmpt://a.example/live"),
        ("rtmpt://a.example:8080", "rtmpt 8080", "rtmpt://a.example:8080"),
        ("rtmps://a.example", "rtmps 443, rtmpts 443", "rtmps://a.example"),
        ("rtmpts://a.example", "rtmpts 443", "rtmpts://a.example"),
        ("rtmps://a.example:8443", "rtmps 8443", "rtmps://a.example:8443"),
        ("::1", "rtmp 1935, rtmp 443, rtmp 80, rtmpt 80", "rtmp://[::1]"),
        ("[::1]:1935", "rtmp 1935", "rtmp://[::1]:1935"),
        ("rtmp://[::1]/live", "rtmp 1935, rtmp 443, rtmp 80, rtmpt 80", "rtmp://[::1]/live"),
        ("bücher.example", "rtmp 1935, rtmp 443, rtmp 80, rtmpt 80", "rtmp://xn--bcher-kva.example"),
    ],
)
def test_address_means_the_ways_of_flash_player(text: str, ways: str, written: str) -> None:
    place = url.parse(text)
    assert ", ".join(f"{way.scheme} {way.port}" for way in place.ways) == ways
    assert str(place) == written


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "write HOST"),
        ("http://a.example", "write HOST"),
        ("rtmpe://a.example", "write HOST"),
        ("rtmp://u:p@a.example/", "write HOST"),
        ("rtmp:///live", "write HOST"),
        ("a.example:0", "a port from 1 to 65535"),
        ("a.example:70000", "a port from 1 to 65535"),
        ("a..example", "is not a host"),
        ("a b", "write HOST"),
        (f"rtmp://a.example/{'x' * 256}", "at most 255"),
        ("rtmp://a.example/other", "names the application other, and --rtmp names live"),
    ],
)
def test_address_that_cannot_be_read_says_what_to_write(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        url.parse(text, "live" if "other" in text else "")


def test_url_of_connect_leaves_out_the_usual_port() -> None:
    place = url.parse("a.example", "live")
    assert [place.url(way) for way in (*place.ways, Way("rtmps", 443))] == [
        "rtmp://a.example/live", "rtmp://a.example:443/live", "rtmp://a.example:80/live", "rtmpt://a.example/live",
        "rtmps://a.example/live",
    ]  # fmt: skip


def test_proxy_carries_tunnels_only() -> None:
    place = url.parse("a.example")._replace(proxy=url.parse_proxy("http://[::1]:3128/"))
    assert (place.ways, str(place.proxy)) == ((Way("rtmpt", 80),), "http://[::1]:3128")
    for text in ("a.example:3128", "https://a.example:3128", "http://a.example", "http://a.example:0"):
        with pytest.raises(ValueError, match="write http://HOST:PORT"):
            url.parse_proxy(text)
