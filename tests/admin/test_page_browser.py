"""The page in a real browser: Chromium without a window, driven by Playwright, checked by axe."""

import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from testkit.certificates import in_days, make_ca
from testkit.clients import ask, connect, rest
from testkit.processes import POLICY, Flashpol
from testkit.upgrades import upgrade

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
if CHROMIUM is None:
    pytest.skip("Chromium is not installed", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api")
axe = pytest.importorskip("axe_playwright_python.sync_playwright")

pytestmark = pytest.mark.slow

PATIENCE = 30_000  # ms, for what comes with the next update or the one after it, on a busy machine
sync_api.expect.set_options(timeout=PATIENCE)
WIDE, PHONE, NARROW = (1200, 900), (390, 844), (320, 640)

# What scripts in a listener's name and in a policy would do if they were not text.
HOSTILE = '<img src="x" onerror="document.title=1"><script>document.title=1</script>'
CONFIG = f"""
[policies.games]
file = "games.xml"
[[listeners]]
name = '{HOSTILE}'
address = "127.0.0.1:0"
policy = "games"
tls = ["games"]
[[listeners]]
name = "chat"
address = "127.0.0.1:0"
policy = "games"
upstream = "127.0.0.1:9"
websocket = true
"""
GRANT = '<allow-access-from domain="*.example.com" to-ports="{}"/>'
# Wider than any screen, in one piece.
LONG = f"{GRANT.format('1935-1940,22')}<!-- {HOSTILE.replace('--', '')} {'long' * 100} -->"


def policy(grant: str) -> str:
    return f"<cross-domain-policy>\n{grant}\n</cross-domain-policy>\n"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, chromium_sandbox=False)
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flashpol]:
    config = tmp_path_factory.mktemp("page") / "flashpol.toml"
    config.write_text("[server]\nrequest_timeout = 600\n")  # silent connections stay until the page shows them
    with Flashpol("-c", config, "--policy", POLICY, workers=2) as server:
        yield server


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[tuple[Flashpol, Path]]:
    """A server, and the file of its policy."""
    pytest.importorskip("flashpol._tls", reason="flashpol was built without OpenSSL")
    file = tmp_path / "games.xml"
    file.write_text(policy(LONG))
    names = ["games.example.com", f"{'a' * 60}.{'b' * 60}.example.com", *(f"{n}.example.com" for n in range(20))]
    certificate = make_ca(tmp_path).issue(*names, not_after=in_days(9.5))
    config = tmp_path / "flashpol.toml"
    config.write_text(certificate.toml() + CONFIG)
    with Flashpol("-c", config, listen=()) as server:
        assert rest(connect(server.places[1], upgrade("/", f"https://{'c' * 60}.{'d' * 60}.example.net"))) != b""
        yield server, file


OpenPage = Callable[..., Any]


@pytest.fixture
def open_page(browser: Any) -> Iterator[OpenPage]:
    """Opens the page of a server. The test fails if the browser complains about anything."""
    complaints: list[str] = []
    contexts = []

    def visit(server: Flashpol, size: tuple[int, int] = WIDE, scheme: str = "light", **options: bool) -> Any:
        viewport = dict(zip(("width", "height"), size, strict=True))
        context = browser.new_context(viewport=viewport, color_scheme=scheme, **options)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(PATIENCE)
        home = home_of(server)
        page.on("console", lambda message: complaints.append(message.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("request", lambda request: request.url.startswith(home) or complaints.append(request.url))
        page.on("response", lambda response: response.ok or complaints.append(f"{response.status} {response.url}"))
        page.clock.install()
        page.goto(home)
        return page

    yield visit
    for context in contexts:
        context.close()
    assert complaints == [], "no errors, no violations of the security policy, nothing from elsewhere"


def home_of(server: Flashpol) -> str:
    return server.url.removesuffix("metrics")


def until_text(page: Any, pattern: str) -> None:
    sync_api.expect(page.locator("body")).to_contain_text(re.compile(pattern))


def updated(page: Any) -> None:
    """Wait for another update."""
    before = page.locator("header time").text_content()
    sync_api.expect(page.locator("header time")).not_to_have_text(before)


def decide(page: Any, content: str, port: str) -> None:
    """Fill in the form and send it with the keyboard."""
    page.locator("#from").focus()
    page.keyboard.type(content)
    page.keyboard.press("Tab")
    page.keyboard.type(port)
    page.keyboard.press("Enter")


# ----------------------------------------------------------------------------------------------------------------- live


def test_page_updates_its_figures_without_being_loaded_again(server: Flashpol, open_page: OpenPage) -> None:
    page = open_page(server)
    before = int(server.metrics().total("replies_total"))
    replies = page.locator(".tiles dd.quiet").first
    sync_api.expect(replies).to_have_text(f"{before} since start")
    page.evaluate("window.same = true")
    for _ in range(9):
        ask(server.place)
    sync_api.expect(replies).to_have_text(f"{before + 9} since start")
    with connect(server.place, b"<pol"):
        until_text(page, "1 waiting")
    page.locator(".chart polyline").first.wait_for()
    assert page.title() != "– replies/s – flashpol"
    assert page.evaluate("window.same"), "the page was not loaded again"


def test_page_paused_sends_no_requests_until_resumed(server: Flashpol, open_page: OpenPage) -> None:
    page = open_page(server)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.clock.run_for(2_000)
    updated(page)
    assert asked
    page.get_by_role("button", name="Pause updates").press("Enter")
    asked.clear()
    page.clock.run_for(20_000)
    assert asked == []
    page.get_by_role("button", name="Resume updates").press("Enter")
    updated(page)


def test_page_after_a_reload_shows_the_new_policy_without_being_loaded_again(
    hostile: tuple[Flashpol, Path], open_page: OpenPage
) -> None:
    server, file = hostile
    page = open_page(server)
    until_text(page, "FP606")
    page.evaluate("window.same = true")
    file.write_text(policy(GRANT.format("4711")))
    server.process.send_signal(signal.SIGHUP)
    sync_api.expect(page.locator("#policies ~ article")).to_contain_text(["4711", "4711"])
    assert "FP606" not in page.locator("body").text_content()
    file.write_text(policy("<nonsense"))
    server.process.send_signal(signal.SIGHUP)
    until_text(page, "The last reload failed")
    assert page.evaluate("window.same")


def test_page_of_a_server_that_ended_says_that_figures_are_old(browser: Any) -> None:
    with Flashpol("--policy", POLICY) as server:
        page = browser.new_page()
        page.goto(home_of(server))
        assert not page.get_by_role("alert").is_visible()
        assert server.stop() == 0
        page.get_by_role("alert").filter(has_text="No reply since").wait_for(timeout=PATIENCE)
        page.close()


# ------------------------------------------------------------------------------------------------------------- the form


def test_decide_form_by_keyboard_keeps_focus_and_shows_each_client(server: Flashpol, open_page: OpenPage) -> None:
    page = open_page(server)
    decide(page, "http://www.example.com/game.swf", "1935")
    decisions = page.locator("#decision li")
    sync_api.expect(decisions).to_have_count(5)
    sync_api.expect(decisions.first).to_contain_text(re.compile("Flash Player.*allowed"))
    sync_api.expect(decisions.first).to_contain_text('to-ports="1935,8000,8001"')
    assert page.url == home_of(server)
    updated(page)
    assert page.locator("#port").input_value() == "1935"
    assert page.locator("#port").evaluate("element => element === document.activeElement")
    sync_api.expect(decisions).to_have_count(5)
    page.keyboard.press("End")
    page.keyboard.type("9")
    page.keyboard.press("Enter")
    sync_api.expect(decisions.first).to_contain_text(re.compile("Flash Player.*denied"))


def test_decide_form_without_javascript_opens_a_page_of_its_own(server: Flashpol, open_page: OpenPage) -> None:
    page = open_page(server, java_script_enabled=False)
    assert not page.locator("#pause").is_visible()
    decide(page, "www.example.com", "1936")
    page.wait_for_url("**/-/decide?**")
    assert "port 1936 is not in" in page.locator("#decision").text_content()
    page.get_by_role("link", name="back to all figures").click()
    page.wait_for_url(home_of(server))


def test_ruffle_form_keeps_what_is_typed_and_opens_the_script(
    hostile: tuple[Flashpol, Path], open_page: OpenPage
) -> None:
    server, _ = hostile
    page = open_page(server)
    page.get_by_label("Host that the content connects to").fill("games.example.com")
    updated(page)
    page.keyboard.press("Enter")
    page.wait_for_url("**/-/ruffle?**")
    port = server.places[1][1]
    sync_api.expect(page.locator("pre")).to_contain_text(f'"proxyUrl": "ws://games.example.com:{port}/"')
    assert axe.Axe().run(page).response["violations"] == []
    page.get_by_role("link", name="back to all figures").click()
    page.wait_for_url(home_of(server))


# ------------------------------------------------------------------------------------------------------------ the looks


def test_hostile_text_in_a_policy_runs_no_script(hostile: tuple[Flashpol, Path], open_page: OpenPage) -> None:
    page = open_page(hostile[0])
    page.locator("summary").first.click()
    decide(page, "http://www.example.com/", "1935")
    page.locator("#decision li").first.wait_for()
    updated(page)
    assert page.title().endswith("flashpol")
    assert page.locator("img").count() == 0
    assert HOSTILE in page.locator("tbody th").filter(has_text="onerror").first.text_content()


@pytest.mark.parametrize("path", ["", "-/decide"])
def test_page_of_320_pixels_does_not_scroll_sideways(
    path: str, hostile: tuple[Flashpol, Path], open_page: OpenPage
) -> None:
    server, _ = hostile
    page = open_page(server, NARROW, java_script_enabled=not path)
    decide(page, f"http://{'a' * 60}.{'b' * 60}.example.com/", "1935")
    page.locator("#decision li").first.wait_for()
    if not path:
        for summary in page.locator("summary").all():
            summary.click()
    box = page.locator("html").evaluate("element => [element.scrollWidth, element.clientWidth]")
    assert box == [NARROW[0], NARROW[0]]


def test_page_follows_the_colour_scheme(server: Flashpol, open_page: OpenPage) -> None:
    def brightness(page: Any) -> float:
        colour = page.locator("body").evaluate("element => getComputedStyle(element).backgroundColor")
        return sum(map(int, re.findall(r"\d+", colour)[:3])) / 3

    assert brightness(open_page(server, scheme="dark")) < 40
    assert brightness(open_page(server, scheme="light")) > 220


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [WIDE, NARROW])
def test_page_satisfies_axe(
    size: tuple[int, int], scheme: str, hostile: tuple[Flashpol, Path], open_page: OpenPage
) -> None:
    server, file = hostile
    file.write_text("<nonsense")
    page = open_page(server, size, scheme)
    server.process.send_signal(signal.SIGHUP)
    ask(server.place)
    rest(connect(server.place, b"\x16\x03\x01\x00\x04nonsense"))
    until_text(page, "The last reload failed")
    until_text(page, "Handshakes that failed")
    until_text(page, "Origins refused last")
    page.locator("summary").first.click()
    decide(page, "http://www.example.com/game.swf", "1935")
    page.locator("#decision li").first.wait_for()
    found = axe.Axe().run(page).response
    assert [(each["id"], [node["html"] for node in each["nodes"]]) for each in found["violations"]] == []
    assert {"color-contrast", "region", "label"} <= {each["id"] for each in found["passes"]}
