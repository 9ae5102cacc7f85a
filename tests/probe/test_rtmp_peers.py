"""Real programs: nginx's media server, what real proxies make of a tunnel, and what real clients make of that."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from loopback import Server, look_at_media
from rtmp_servers import Gateway, http, in_chunks, media

from flashpol.probe import Observation, findings
from flashpol.probe.client_models import conclusions
from testkit.polling import eventually
from testkit.processes import Flashpol, free_port
from testkit.programs import find, needs, nginx, running, wait_for

pytestmark = pytest.mark.slow


def codes(observation: Observation) -> set[str]:
    return {finding.code for finding in findings.of(observation)}


def connects(observation: Observation) -> list[bool | None]:
    return [conclusion.connects for conclusion in conclusions(observation)]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """nginx's media server with the application live."""
    port = free_port()
    text = f"rtmp {{ server {{ listen 127.0.0.1:{port}; application live {{ live on; }} }} }}\n"
    with nginx(tmp_path_factory.mktemp("rtmp"), "ngx_rtmp_module.so", text):
        wait_for(("127.0.0.1", port), "the media server listens")
        yield port


@needs("nginx", modules=("ngx_rtmp_module.so",))
def test_media_server_of_nginx_is_right(server: int) -> None:
    for application in ("", "live"):
        seen = look_at_media(f"127.0.0.1:{server}", application)
        assert (codes(seen), connects(seen)) == (set(), [True])


@needs("nginx", modules=("ngx_rtmp_module.so",))
def test_media_server_of_nginx_closes_for_an_unknown_application(server: int) -> None:
    seen = look_at_media(f"127.0.0.1:{server}", "other")
    assert (codes(seen), connects(seen)) == ({"PB741"}, [False])


@needs("nginx", modules=("ngx_rtmp_module.so",))
def test_tunnel_to_the_media_server_of_nginx_is_right(server: int) -> None:
    with Server(Gateway(server)) as gateway:
        seen = look_at_media(f"rtmpt://127.0.0.1:{gateway.port}/live")
    assert (codes(seen), connects(seen)) == (set(), [True])


CONFIGURATION = """
[policies.games]
grants = [{{domain = "*", ports = "1935"}}]
[server]
workers = 2
[[listeners]]
address = "127.0.0.1:0"
policy = "games"
upstream = "127.0.0.1:{upstream}"
rtmpt = true
"""


@needs("nginx", modules=("ngx_rtmp_module.so",))
def test_tunnel_of_flashpol_has_no_findings(server: int, tmp_path: Path) -> None:
    (tmp_path / "flashpol.toml").write_text(CONFIGURATION.format(upstream=server))
    with Flashpol("-c", tmp_path / "flashpol.toml", listen=()) as flashpol:
        port = flashpol.place[1]
        for place in (f"rtmpt://127.0.0.1:{port}/live", f"rtmpt://127.0.0.1:{port}", f"rtmp://127.0.0.1:{port}/live"):
            seen = look_at_media(place, ignored=frozenset())
            assert (codes(seen), connects(seen)) == (set(), [True])
        assert codes(look_at_media(f"rtmpt://127.0.0.1:{port}/other")) == {"PB741"}


# ------------------------------------------------------------------------------------------------------------- proxies


@contextlib.contextmanager
def proxy(folder: Path, program: str, arguments: tuple[str, ...], text: str) -> Iterator[int]:
    """A program with a configuration in which PORT is its port; CONF among the arguments is the file."""
    port = free_port()
    folder.chmod(0o777)  # squid runs as the user proxy
    file = folder / "proxy.conf"
    file.write_text(text.replace("PORT", str(port)).replace("FOLDER", str(folder)))
    command = (
        find(program),
        *(argument.replace("CONF", str(file)).replace("PORT", str(port)) for argument in arguments),
    )
    with running(*command, log=folder / "proxy.log"):
        wait_for(("127.0.0.1", port), f"{program} listens")
        yield port


@pytest.fixture(scope="module")
def gateway() -> Iterator[int]:
    with Server(media()) as behind, Server(Gateway(behind.port)) as served:
        yield served.port


NGINX = """daemon off; master_process off; pid FOLDER/pid; error_log FOLDER/error.log; events { }
http { access_log off; client_body_temp_path FOLDER/body; proxy_temp_path FOLDER/proxy; fastcgi_temp_path FOLDER/f;
uwsgi_temp_path FOLDER/u; scgi_temp_path FOLDER/s; server { listen 127.0.0.1:PORT; LOCATION } }
"""


def nginx_with(folder: Path, location: str) -> contextlib.AbstractContextManager[int]:
    arguments = ("-p", str(folder), "-e", str(folder / "start.log"), "-c", "CONF")
    return proxy(folder, "nginx", arguments, NGINX.replace("LOCATION", location))


@needs("nginx")
def test_nginx_in_front_keeps_the_connection(gateway: int, tmp_path: Path) -> None:
    with nginx_with(tmp_path, f"location / {{ proxy_pass http://127.0.0.1:{gateway}; }}") as port:
        seen = look_at_media(f"rtmpt://127.0.0.1:{port}/live")
    assert (codes(seen), connects(seen)) == (set(), [True])


@needs("nginx")
def test_web_server_without_a_tunnel_is_told_what_to_pass_on(tmp_path: Path) -> None:
    with nginx_with(tmp_path, "location / { return 404; }") as port:
        seen = look_at_media(f"rtmpt://127.0.0.1:{port}/live")
        direct = look_at_media(f"rtmp://127.0.0.1:{port}/live")
    [finding] = [finding for finding in findings.of(seen) if finding.code == "PB720"]
    assert "proxy_pass http://HOST:PORT" in finding.instead
    assert codes(seen) == {"PB701", "PB720"}
    assert codes(direct) == {"PB701", "PB710"}


@needs("nginx")
def test_limit_of_requests_is_found(gateway: int, tmp_path: Path) -> None:
    location = f"keepalive_requests 2; location / {{ proxy_pass http://127.0.0.1:{gateway}; }}"
    with nginx_with(tmp_path, location) as port:
        seen = look_at_media(f"rtmpt://127.0.0.1:{port}/live")
    assert (codes(seen), connects(seen)) == ({"PB731"}, [True])


@needs("haproxy")
def test_haproxy_writes_lower_case(gateway: int, tmp_path: Path) -> None:
    text = (
        "GLOBAL\ndefaults\n mode http\n timeout connect 3s\n timeout client 9s\n timeout server 9s\n"
        f"listen a\n bind 127.0.0.1:PORT\n OPTION\n server s 127.0.0.1:{gateway}\n"
    )
    with proxy(
        tmp_path, "haproxy", ("-db", "-q", "-f", "CONF"), text.replace("GLOBAL\n", "").replace("OPTION", "")
    ) as port:
        seen = look_at_media(f"rtmpt://127.0.0.1:{port}/live")
    assert (codes(seen), connects(seen)) == ({"PB732"}, [True])
    remedy = text.replace("GLOBAL", "global\n h1-case-adjust content-length Content-Length")
    remedy = remedy.replace("OPTION", "option h1-case-adjust-bogus-client")
    with proxy(tmp_path, "haproxy", ("-db", "-q", "-f", "CONF"), remedy) as port:
        assert codes(look_at_media(f"rtmpt://127.0.0.1:{port}/live")) == set()


@needs("tinyproxy")
def test_tinyproxy_lets_only_flash_player_through(gateway: int, tmp_path: Path) -> None:
    text = "Port PORT\nListen 127.0.0.1\nTimeout 20\nMaxClients 10\nAllow 127.0.0.1\n"
    with proxy(tmp_path, "tinyproxy", ("-d", "-c", "CONF"), text) as port:
        seen = look_at_media(f"rtmpt://127.0.0.1:{gateway}/live", proxy=f"http://127.0.0.1:{port}")
    assert (codes(seen), connects(seen)) == ({"PB730"}, [True])
    assert "tinyproxy closes each connection" in findings.of(seen)[0].instead


@needs("squid")
def test_squid_as_the_proxy_of_a_network_keeps_the_connection(gateway: int, tmp_path: Path) -> None:
    text = (
        "http_port 127.0.0.1:PORT\nhttp_access RULE all\ncache deny all\npid_filename none\ncache_log FOLDER/log\n"
        "access_log none\nvisible_hostname test\ncoredump_dir FOLDER\nshutdown_lifetime 0 seconds\n"
        "netdb_filename none\n"
    )
    place, arguments = (
        f"rtmpt://127.0.0.1:{gateway}/live",
        ("-N", "-n", "onPORT", "-f", "CONF"),
    )  # its name must be its own
    with proxy(tmp_path, "squid", arguments, text.replace("RULE", "allow")) as port:
        seen = look_at_media(place, proxy=f"http://127.0.0.1:{port}")
    assert (codes(seen), connects(seen)) == (set(), [True])
    with proxy(tmp_path, "squid", arguments, text.replace("RULE", "deny")) as port:
        seen = look_at_media(place, proxy=f"http://127.0.0.1:{port}")
    assert codes(seen) == {"PB701", "PB728"}


# ------------------------------------------------------------------------------------------------------------- clients

CLIENTS = {
    "ffmpeg": ("-nostdin", "-v", "error", "-i", "URL", "-f", "null", "-"),
    "rtmpdump": ("-q", "-m", "5", "-r", "URL", "-o", "/dev/null"),  # seconds until it gives up
}
GATEWAYS: dict[str, dict[str, Any]] = {
    "correct": {},
    "closes each": {"reply": lambda body: http("200 OK", body, "Connection: close"), "then": lambda count: False},
    "closes sometimes": {"then": lambda count: count < 2},
    "lower case": {"reply": lambda body: http("200 OK", body, f"content-length: {len(body)}")},
    "chunked": {"reply": in_chunks},
    "no newline": {"identifier": b"A0bcdefghijklmno"},
    "empty": {"empty": b""},
}


def gets_through(client: str, gateway: Gateway, port: int, log: Path) -> bool:
    """Whether a client goes on polling after its handshake, for more requests than one that fails has sent."""
    before = len(gateway.lines)
    arguments = (argument.replace("URL", f"rtmpt://127.0.0.1:{port}/live/x") for argument in CLIENTS[client])
    with running(client, *arguments, log=log) as process:
        eventually(lambda: process.poll() is not None or len(gateway.lines) > before + 12, f"{client} fails or polls")
        return process.poll() is None


@needs("ffmpeg", "rtmpdump")
@pytest.mark.parametrize("case", GATEWAYS)
def test_findings_about_tunnel_name_the_clients_that_fail(case: str, tmp_path: Path) -> None:
    with Server(media()) as behind:
        gateway = Gateway(behind.port, **GATEWAYS[case])
        with Server(gateway) as served:
            failed = {one for one in CLIENTS if not gets_through(one, gateway, served.port, tmp_path / one)}
            seen = look_at_media(f"rtmpt://127.0.0.1:{served.port}/live")
    assert connects(seen) == [True]
    assert failed == {client for finding in findings.of(seen) for client in finding.clients}
