"""The guide's example: nginx-rtmp behind a shared port; ffmpeg publishes and plays through it."""

import subprocess
from pathlib import Path

import pytest

from testkit.clients import ask
from testkit.polling import DEADLINE, eventually
from testkit.processes import Flashpol, free_port
from testkit.programs import needs, nginx, running, wait_for

pytestmark = [pytest.mark.slow, needs("nginx", "ffmpeg", modules=("ngx_rtmp_module.so",))]
POLICY = b'<cross-domain-policy><allow-access-from domain="*.example.com" to-ports="1935"/></cross-domain-policy>'


@pytest.mark.parametrize(
    ("listen", "setting"), [("", ""), (" proxy_protocol", 'upstream_proxy = "v1"\n')], ids=["plain", "proxy v1"]
)
def test_shared_port_relays_rtmp_and_replies_on_one_port(tmp_path: Path, listen: str, setting: str) -> None:
    (tmp_path / "policy.xml").write_bytes(POLICY)
    upstream = free_port()
    rtmp = f"rtmp {{ server {{ listen 127.0.0.1:{upstream}{listen}; application live {{ live on; }} }} }}\n"
    with nginx(tmp_path, "ngx_rtmp_module.so", rtmp):
        wait_for(("127.0.0.1", upstream), "nginx")
        config = tmp_path / "flashpol.toml"
        config.write_text(
            '[policies.media]\nfile = "policy.xml"\n'
            '[[listeners]]\nname = "rtmp"\naddress = "127.0.0.1:0"\n'
            f'upstream = "127.0.0.1:{upstream}"\n{setting}'
        )
        with Flashpol("-c", config, listen=()) as server:
            url = f"rtmp://127.0.0.1:{server.place[1]}/live/test"
            quiet = ["ffmpeg", "-nostdin", "-loglevel", "error", "-y"]
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
            server.counts(1, "replies_total")
            assert server.stop() == 0
