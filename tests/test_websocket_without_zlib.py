"""A build without the headers of zlib: WebSocket works, and compression is refused."""

import importlib.util
import os
import shlex
import subprocess
import sysconfig
from pathlib import Path
from types import ModuleType

import pytest

from testkit.clients import ask
from testkit.processes import ROOT, Flashpol
from testkit.websocket_frames import BINARY, Frames, frame

pytestmark = pytest.mark.slow
CONFIGURATION = """
[policies.main]
grants = [{domain = "*.example.com", ports = "7000"}]
[[listeners]]
address = "127.0.0.1:0"
policy = "main"
upstream = "127.0.0.1:9"
[[listeners.websocket]]
path = "*"
port = 7000
compression = %s
"""


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The extension as setup.py builds it where there are no headers."""
    folder = tmp_path_factory.mktemp("without-zlib")
    from Cython.Build import cythonize
    from setuptools import Extension

    before = os.getcwd()
    os.chdir(ROOT)
    try:
        extension = Extension("flashpol._websocket", ["flashpol/_websocket.pyx"])
        cythonize([extension], build_dir=str(folder), quiet=True, force=True)  # type: ignore[no-untyped-call]
    finally:
        os.chdir(before)
    made = folder / f"_websocket{sysconfig.get_config_var('EXT_SUFFIX')}"
    compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")
    options = ["-O0", "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}", f"-I{ROOT}"]
    source = folder / "flashpol" / "_websocket.c"
    subprocess.run([*compiler, *options, source, "-o", made], check=True, timeout=300)
    return made


@pytest.fixture
def built(library: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location("flashpol._websocket", library)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_codec_without_zlib_has_messages_but_no_compression(built: ModuleType) -> None:
    assert built.COMPRESSES is False
    block = bytearray(built.BLOCK_SIZE)
    with pytest.raises(MemoryError):
        built.Path(block, max_message=1000, compression=True)
    codec = built.WebSocketCodec(built.Path(block, max_message=1000), compresses=True)
    codec.work()
    assert codec.decode(frame(BINARY, b"hello")) == ("ok", b"hello", b"")
    [sent] = Frames().feed(codec.encode(b"hello" * 100))
    assert (sent.payload, sent.rsv1) == (b"hello" * 100, False)
    assert codec.decode(frame(BINARY, b"hello", rsv1=True))[0] == "error"


def prelude(library: Path) -> str:
    """Puts that extension in place of the one of this build."""
    return f"""
import importlib.util, sys
import flashpol
spec = importlib.util.spec_from_file_location("flashpol._websocket", {str(library)!r})
module = importlib.util.module_from_spec(spec)
sys.modules["flashpol._websocket"] = flashpol._websocket = module
spec.loader.exec_module(module)
"""


def test_server_without_zlib_refuses_compression_and_serves_the_rest(tmp_path: Path, library: Path) -> None:
    path = tmp_path / "flashpol.toml"
    path.write_text(CONFIGURATION % "true")
    with pytest.raises(
        AssertionError, match=r"flashpol\.toml:\d+:\d+: compression needs zlib, .*zlib1g-dev"
    ) as refused:
        Flashpol("-c", path, listen=(), prelude=prelude(library)).__enter__()
    assert "ended with 2" in str(refused.value)
    path.write_text(CONFIGURATION % "false")
    with Flashpol("-c", path, listen=(), prelude=prelude(library)) as server:
        assert b"*.example.com" in ask(server.place)
