"""`make picture`: takes docs/demo.png, the picture of `make demo` in the README, in Chromium without a window."""

import shutil
import sys
import time
from pathlib import Path

from playwright.sync_api import sync_playwright

from testkit.chat_demo import ChatDemo, say

ROOT = Path(__file__).resolve().parents[2]
FILE = ROOT / "docs" / "demo.png"
WIDTH, HEIGHT = 1200, 690
PAUSE = 1.5  # seconds for a message to come back and for the page to show the log
CONVERSATION = (
    ("Ben", "Hello Ada! Which browser is this?"),
    ("Ada", "Chromium, without a Flash plug-in. And yours?"),
    ("Ben", "The same, in a second window."),
)


def main() -> int:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("make picture: Chromium is not installed: apt-get install chromium", file=sys.stderr)
        return 2
    with ChatDemo() as demo, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, chromium_sandbox=False)
        windows = {}
        for name in ("Ada", "Ben"):
            windows[name] = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT})
            windows[name].goto(f"{demo.url}?nick={name}")
            demo.until(f"{name} joined")
            time.sleep(PAUSE)
        for name, text in CONVERSATION:
            say(windows[name], text)
            time.sleep(PAUSE)
        windows["Ada"].bring_to_front()  # a browser may not draw what is behind
        time.sleep(PAUSE)
        windows["Ada"].screenshot(path=FILE)
        browser.close()
    print(f"wrote {FILE.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
