"""Content that is not from the web: each client's documented rule for each sandbox."""

import pytest

from flashpol.policy import DECIDE_CLIENTS, Decider, PolicyError
from flashpol.policy.clients.sandboxes import LOCAL, RULES, SANDBOXES, knows

ANY = b'<cross-domain-policy><allow-access-from domain="*" to-ports="1935"/></cross-domain-policy>'
NAMED = ANY.replace(b'"*"', b'"www.example.com"')
NOTHING = b"<cross-domain-policy/>"
FILE, APP, WEB = "file:///games/x.swf", "app:/Main.swf", "http://www.example.com/x.swf"
NO_POLICY, BLOCKED, NO_DOMAIN = "no policy needed: ", "blocked whatever the policy says: ", "content without a domain"


def decision(policy: bytes, content: str, client: str, sandbox: str | None, **options: bool) -> tuple[bool, str]:
    [only] = Decider(policy, [client]).decide(content, 1935, sandbox=sandbox, **options)  # type: ignore[arg-type]
    return only.allowed, only.reason


@pytest.mark.parametrize(
    ("client", "sandbox", "content", "allowed_by_any", "allowed_by_named", "allowed_by_nothing", "words"),
    [
        ("flash", None, FILE, False, False, False, BLOCKED),
        ("flash", "local-with-filesystem", FILE, False, False, False, BLOCKED),
        ("flash", "local-with-networking", FILE, True, False, False, NO_DOMAIN),
        ("flash", "local-trusted", FILE, True, True, True, NO_POLICY),
        ("flash", "projector", FILE, True, True, True, NO_POLICY),
        ("flash", "projector", WEB, True, True, True, NO_POLICY),
        ("flash", None, APP, True, True, True, NO_POLICY),
        ("flash", "air-application", WEB, True, True, True, NO_POLICY),
        ("flash", None, "app-storage:/x.swf", False, False, False, BLOCKED),
        ("flash", "ruffle-desktop", FILE, True, True, True, NO_POLICY),
        ("flash", "ruffle-web", WEB, True, True, True, NO_POLICY),
        ("flash", "remote", WEB, True, True, False, ""),
        ("lightspark", None, FILE, False, False, False, BLOCKED),
        ("lightspark", "local-with-networking", FILE, True, False, False, NO_DOMAIN),
        ("lightspark", "local-trusted", FILE, True, False, False, NO_DOMAIN),
        ("unity", None, FILE, True, False, False, ""),
        ("unity", "standalone", FILE, True, True, True, NO_POLICY),
        ("silverlight", "elevated-trust", FILE, True, True, True, NO_POLICY),
        ("ruffle", None, FILE, True, False, False, "without an Origin of its own"),
        ("ruffle", "local-with-networking", FILE, True, False, False, "without an Origin of its own"),
        ("ruffle", "local-trusted", FILE, True, False, False, "without an Origin of its own"),
        ("ruffle", "ruffle-web", WEB, True, True, False, "by the Origin of the page"),
        ("ruffle", "ruffle-web", FILE, True, False, False, "by the Origin of the page"),
        ("ruffle", "ruffle-desktop", FILE, True, True, True, NO_POLICY),
        ("ruffle", None, APP, False, False, False, "ruffle runs no air-application content"),
    ],
)
def test_decide_by_sandbox(
    *,
    client: str,
    sandbox: str | None,
    content: str,
    allowed_by_any: bool,
    allowed_by_named: bool,
    allowed_by_nothing: bool,
    words: str,
) -> None:
    for policy, expected in ((ANY, allowed_by_any), (NAMED, allowed_by_named), (NOTHING, allowed_by_nothing)):
        allowed, reason = decision(policy, content, client, sandbox)
        assert allowed is expected, policy
        assert words in reason


def test_lightspark_trusted_content_needs_no_policy_for_its_own_host() -> None:
    allowed, reason = decision(NOTHING, FILE, "lightspark", "local-trusted", local=True)
    assert (allowed, reason.startswith(NO_POLICY)) == (True, True)


def test_decide_in_a_sandbox_that_a_client_lacks_is_denied_with_the_reason() -> None:
    for client in DECIDE_CLIENTS:
        for sandbox in SANDBOXES:
            if not knows(client, sandbox):
                assert decision(ANY, FILE, client, sandbox) == (
                    False, f"{client} runs no {sandbox} content ({SANDBOXES[sandbox]})",
                )  # fmt: skip
    assert decision(ANY, APP, "unity", None)[0] is False


def test_every_sandbox_has_a_client() -> None:
    assert {sandbox for rules in RULES.values() for sandbox in rules} == set(SANDBOXES) - {"remote"}


@pytest.mark.parametrize(
    ("content", "sandbox", "words"),
    [
        (WEB, "garden", 'there is no sandbox "garden"; write one of remote, local-with-filesystem'),
        *((WEB, sandbox, "is not a file; write a file: URL") for sandbox in LOCAL),
        (FILE, "remote", "is not remote; write the URL of a site"),
        (APP, "remote", "is not remote; write the URL of a site"),
    ],
)
def test_decide_with_a_sandbox_that_does_not_fit_raises(content: str, sandbox: str, words: str) -> None:
    with pytest.raises(PolicyError) as caught:
        Decider(ANY).decide(content, 1935, sandbox=sandbox)
    assert words in str(caught.value)
