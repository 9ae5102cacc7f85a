"""`make demo` as a process, and what a player does in its windows."""

import os
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any, Self

from testkit.polling import eventually
from testkit.processes import ROOT

READY = "demo ready: open "
SECONDS = 150.0  # Ruffle may have to be fetched
GRANTED, DENIED = "#granted", "#denied"  # the frames of the page
INPUT = 0.94  # how far down in the movie the line for input is


class ChatDemo:
    """>>> with ChatDemo() as demo:
    ...     page.goto(f"{demo.url}?nick=Ada")
    ...     demo.until("Ada joined")
    ...     say(page, "hello")
    """

    def __init__(self, *arguments: str | Path) -> None:
        self.arguments = arguments
        self.chat: tuple[str, int] = ("127.0.0.1", 7000)
        self._files = ExitStack()

    def __enter__(self) -> Self:
        self._out = self._files.enter_context(TemporaryFile())
        self.process = subprocess.Popen(
            [sys.executable, "-m", "examples.chat", *map(str, self.arguments)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=self._out,
            stderr=subprocess.STDOUT,
        )
        try:
            self.until(READY)
        except BaseException:
            self.stop()
            raise
        self.url = self.out.partition(READY)[2].split()[0]
        return self

    def __exit__(self, *_: object) -> None:
        with self._files:
            self.stop()

    @property
    def out(self) -> str:
        """What it has printed."""
        return os.pread(self._out.fileno(), 1 << 20, 0).decode()

    def until(self, text: str) -> None:
        def found() -> bool:
            assert self.process.poll() is None, self.out
            return text in self.out

        eventually(found, f"{text} in {self.out}", SECONDS)

    def stop(self) -> int:
        """What Ctrl-C does; returns the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise


def say(page: Any, text: str, frame: str = GRANTED) -> None:
    """Type into the movie of a frame of the page, and press Enter."""
    box = page.locator(frame).bounding_box()
    page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] * INPUT)
    page.keyboard.type(text)
    page.keyboard.press("Enter")
