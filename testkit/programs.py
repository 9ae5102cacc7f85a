"""Other programs that tests run: one that is started and ended with a block, nginx with one of its modules."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from testkit.clients import connect
from testkit.polling import DEADLINE, eventually

NGINX_MODULES = Path("/usr/lib/nginx/modules")


def find(program: str) -> str | None:
    """Its path. An ordinary user may lack /usr/sbin in PATH, where nginx is."""
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def needs(*programs: str, modules: tuple[str, ...] = ()) -> pytest.MarkDecorator:
    """Skip the test where a program, or a module of nginx, is not installed."""
    missing = [name for name in programs if not find(name)]
    missing += [name for name in modules if not (NGINX_MODULES / name).exists()]
    return pytest.mark.skipif(bool(missing), reason=f"not installed: {', '.join(missing)}")


@contextmanager
def running(*command: object, log: Path, cwd: Path | None = None) -> Iterator["subprocess.Popen[bytes]"]:
    """A program, with what it prints in `log`. SIGTERM ends it, or SIGKILL after five seconds."""
    with log.open("wb") as out:
        process = subprocess.Popen([*map(str, command)], cwd=cwd, stdin=subprocess.DEVNULL, stdout=out, stderr=out)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(DEADLINE)


@contextmanager
def nginx(folder: Path, module: str, text: str) -> Iterator[None]:
    """nginx with a module and `text` after the section `events`."""
    (folder / "nginx.conf").write_text(
        f"load_module {NGINX_MODULES / module};\ndaemon off;\nmaster_process off;\npid {folder}/nginx.pid;\n"
        f"error_log {folder}/error.log;\nevents {{ }}\n{text}"
    )
    arguments = ("-p", folder, "-e", folder / "start.log", "-c", folder / "nginx.conf")
    with running(find("nginx"), *arguments, log=folder / "nginx.log"):
        yield


def accepts(address: tuple[str, int]) -> bool:
    with suppress(ConnectionRefusedError):
        connect(address).close()
        return True
    return False


def wait_for(address: tuple[str, int], what: str) -> None:
    """Until a program accepts connections there."""
    eventually(lambda: accepts(address), what)
