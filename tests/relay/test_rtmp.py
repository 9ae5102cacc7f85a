"""The guide's example: nginx-rtmp behind a shared port; ffmpeg publishes and plays through it."""

import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from testkit.clients import ask, connect
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol, free_port

MODULE = Path("/usr/lib/nginx/modules/ngx_rtmp_module.so")
PROGRAMS = {name: shutil.which(name, path="/usr/sbin:/usr/bin:/usr/local/bin:/bin") for name in ("nginx", "ffmpeg")}
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (MODULE.exists() and all(PROGRAMS.values())), reason="needs nginx, libnginx-mod-rtmp and ffmpeg"
    ),
]
POLICY = b'<cross-domain-policy><allow-access-from domain="*.example.com" to-ports="1935"/></cross-domain-policy>'


@contextmanager
def running(*command: object, log: Path) -> Iterator["subprocess.Popen[bytes]"]:
    with log.open("wb") as out:
        process = subprocess.Popen([*map(str, command)], stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(DEADLINE)


@contextmanager
def nginx(folder: Path, listen: str) -> Iterator[int]:
    """Its port. listen: more words of the directive."""
    port = free_port()
    (folder / "nginx.conf").write_text(
        f"load_module {MODULE};\ndaemon off;\nmaster_process off;\npid {folder}/pid;\nerror_log {folder}/error.log;\n"
        f"events {{ }}\nrtmp {{ server {{ listen 127.0.0.1:{port}{listen}; application live {{ live on; }} }} }}\n"
    )
    command = [PROGRAMS["nginx"], "-p", folder, "-e", folder / "start.log", "-c", folder / "nginx.conf"]
    with running(*command, log=folder / "nginx.log"):

        def accepts() -> bool:
            try:
                connect(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                return False
            return True

        eventually(accepts, "nginx")
        yield port


@pytest.mark.parametrize(
    ("listen", "setting"), [("", ""), (" proxy_protocol", 'upstream_proxy = "v1"\n')], ids=["plain", "proxy v1"]
)
def test_shared_port_relays_rtmp_and_replies_on_one_port(tmp_path: Path, listen: str, setting: str) -> None:
    (tmp_path / "policy.xml").write_bytes(POLICY)
    with nginx(tmp_path, listen) as upstream:
        config = tmp_path / "flashpol.toml"
        config.write_text(
            '[policies.media]\nfile = "policy.xml"\n'
            '[[listeners]]\nname = "rtmp"\naddress = "127.0.0.1:0"\n'
            f'upstream = "127.0.0.1:{upstream}"\n{setting}'
        )
        with Flashpol("-c", config, listen=()) as server:
            url = f"rtmp://127.0.0.1:{server.place[1]}/live/test"
            quiet = [PROGRAMS["ffmpeg"], "-nostdin", "-loglevel", "error", "-y"]
            source = ["-re", "-f", "lavfi", "-i", "testsrc=size=160x120:rate=10", "-t", "30"]
            publish = [*quiet, *source, "-c:v", "flv1", "-g", "10", "-f", "flv", url]
            with running(*publish, log=tmp_path / "publish.log") as publisher:
                eventually(
                    lambda: publisher.poll() is not None or server.metrics().total("relay_bytes_total") > 10_000,
                    "the published film",
                )
                assert publisher.poll() is None, (tmp_path / "publish.log").read_text()
                film = tmp_path / "played.flv"
                play = [*quiet, "-rw_timeout", "10000000", "-i", url, "-t", "2", "-c", "copy", "-f", "flv", film]
                done = subprocess.run([*map(str, play)], capture_output=True, timeout=DEADLINE, check=False)
                assert done.returncode == 0, done.stderr
                assert ask(server.place) == POLICY + b"\0"
            assert film.read_bytes()[:3] == b"FLV"
            assert film.stat().st_size > 5_000
            eventually(lambda: server.metrics().total("relayed_total", protocol="rtmp") == 2, "the end of both")
            assert server.metrics().total("replies_total") == 1
            assert server.stop() == 0
