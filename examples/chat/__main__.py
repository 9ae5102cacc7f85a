"""`make demo`: the chat, a web server for its page, and flashpol in front of the chat. Ctrl-C ends all three.

Everything but the port of the page is read from the configuration of flashpol.
"""

import argparse
import collections
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import tomllib
from contextlib import ExitStack, suppress
from pathlib import Path
from string import Template
from types import FrameType
from typing import Any, NamedTuple
from xml.sax.saxutils import escape

from examples.chat import movie
from testkit.ruffle import FOLDER, VERSION, FetchError, Missing, Site, fetch_ruffle

HERE = Path(__file__).resolve().parent
GRANTED, DENIED = "localhost", "127.0.0.1"  # two origins, of which the policy grants the first
SHOWN = 1  # lines of the log on the page
REFUSED = re.compile(r": WebSocket path .*: refused ")  # a line of flashpol's log
PATIENCE = 10.0  # seconds to end


class DemoError(Exception):
    """A program refused to start; the message is its own."""


class Ports(NamedTuple):
    """What the configuration says."""

    chat: int  # flashpol's
    application: str  # HOST:PORT of the chat itself
    admin: str  # HOST:PORT
    policy: Path

    @classmethod
    def read(cls, config: Path) -> "Ports":
        data = tomllib.loads(config.read_text())
        [listener] = data["listeners"]
        policy = config.parent / data["policies"][listener["policy"]]["file"]
        port = int(listener["address"].rpartition(":")[2])
        return cls(port, listener["upstream"], data["server"]["admin"], policy)


def ruffle_script(config: Path) -> str:
    """The <script> for the page: which WebSocket Ruffle opens instead of which connection."""
    command = [sys.executable, "-m", "flashpol", "ruffle", "-c", str(config), "--host", GRANTED, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if not done.stdout:
        raise DemoError(done.stderr.strip())
    return str(json.loads(done.stdout)["script"])


def accepts(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError):
        socket.create_connection((host.strip("[]"), int(port)), PATIENCE).close()
        return True
    return False


class Demo:
    def __init__(self, config: Path, port: int) -> None:
        self._config, self._port = config, port
        self._ports = Ports.read(config)
        self._refused: collections.deque[str] = collections.deque(maxlen=SHOWN)
        self._ready = threading.Event()
        self._end = threading.Event()
        self._stack = ExitStack()

    def run(self) -> int:
        """Until Ctrl-C, or until one of the programs ends; returns the exit status."""
        if not FOLDER.is_dir():
            print(f"fetching Ruffle {VERSION} …", flush=True)
        ruffle = fetch_ruffle()
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._signalled)
        with self._stack:
            try:
                site = Site(self._pages(), ruffle, port=self._port)
            except OSError as error:
                raise DemoError(f"port {self._port}: {error.strerror}; make demo PORT=N takes another") from None
            self._stack.enter_context(site)
            programs = {
                "the chat": self._start(HERE / "application.py", self._ports.application),
                "flashpol": self._start("-m", "flashpol", "serve", "-c", self._config, stderr=subprocess.PIPE),
            }
            threading.Thread(target=self._read_log, args=(programs["flashpol"],), daemon=True).start()
            while not self._end.wait(0.1):
                for name, program in programs.items():
                    if program.poll() is not None:
                        print(f"{name} has ended: see its error above", file=sys.stderr)
                        return 1
                if self._ready.is_set() and accepts(self._ports.application):
                    self._ready.clear()
                    print(f"\ndemo ready: open {site.url(GRANTED)}/ in two windows; Ctrl-C ends it\n", flush=True)
        return 0

    def _signalled(self, _number: int, _frame: FrameType | None) -> None:
        self._end.set()

    def _start(self, *arguments: str | Path, **options: Any) -> "subprocess.Popen[str]":
        """A Python program, in a process group of its own: Ctrl-C is for the demo, which ends the others."""
        program = subprocess.Popen([sys.executable, *map(str, arguments)], text=True, process_group=0, **options)

        def end() -> None:
            program.terminate()
            try:
                program.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                program.kill()
                program.wait()

        self._stack.callback(end)
        return program

    def _read_log(self, flashpol: "subprocess.Popen[str]") -> None:
        assert flashpol.stderr
        with suppress(ValueError):  # closed, at the end
            for line in flashpol.stderr:
                print(line, end="", file=sys.stderr, flush=True)
                if REFUSED.search(line):
                    self._refused.append(line.strip())
                if " ready: " in line:
                    self._ready.set()

    def _pages(self) -> dict[str, Any]:
        granted, denied = (f"http://{host}:{self._port}" for host in (GRANTED, DENIED))
        settings = {
            "denied": denied,
            "parameters": {"host": GRANTED, "port": str(self._ports.chat)},
        }
        values = {
            "host": GRANTED,
            "port": self._ports.chat,
            "granted": granted,
            "denied": denied,
            "policy": escape(self._ports.policy.read_text()),
            "status": f"http://{self._ports.admin}/",
            "settings": json.dumps(settings),
            "script": ruffle_script(self._config),
            "width": movie.WIDTH,
            "height": movie.HEIGHT,
        }
        pages: dict[str, Any] = {
            f"/{path.name}": Template(path.read_text()).safe_substitute(values).encode()
            for path in sorted((HERE / "page").iterdir())
        }
        pages["/"] = pages.pop("/index.html")
        pages["/chat.swf"] = movie.chat()
        pages["/refused.json"] = lambda: json.dumps([*self._refused]).encode()
        return pages


def main() -> int:
    parser = argparse.ArgumentParser(prog="make demo", description="a Flash chat in Ruffle, through flashpol")
    parser.add_argument("-c", "--config", type=Path, default=HERE / "flashpol.toml", help="flashpol's configuration")
    parser.add_argument("--port", type=int, default=8000, help="the port of the page (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        return Demo(arguments.config, arguments.port).run()
    except (DemoError, Missing, FetchError) as error:
        print(f"make demo: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
