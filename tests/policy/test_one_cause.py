"""Every part names the same cause of a mistake in the same words: lint, the reply, the merge and decisions."""

from contextlib import suppress
from pathlib import Path

import pytest

from flashpol.config import ConfigError
from flashpol.policy import Decider, Location, PolicyError, Severity, compile_reply, explained, lint, merge_files
from flashpol.serving.policies import compile_text

GRANT = '<allow-access-from domain="*" to-ports="1935"/>'
POLICY = f"<cross-domain-policy>{GRANT}</cross-domain-policy>"
CORPUS = Path(__file__).parent / "corpus"
CURLY = (
    '<?xml version="1.0"?>\n<cross-domain-policy>\n  <allow-access-from domain="a.example" secure="true\u201d/>\n'
    '<allow-access-from domain="b.example" secure="true\u201d/>\n</cross-domain-policy>\n'
)
PLACE_AND_WORDS = pytest.mark.parametrize(
    ("data", "line", "column", "words"),
    [
        (CURLY.encode(), 3, 53, "the typographic character U+201D in the markup"),
        (GRANT.encode() + POLICY.encode(), 1, 1, "<allow-access-from> precedes the root element <cross-domain-policy>"),
        (POLICY.encode() + b"/n", 1, 91, 'something follows the root element: the characters "/n"'),
        (POLICY.replace('"', '""').encode(), 1, 48, 'doubled quotes ("") around the value of domain'),
        (POLICY.encode()[:60] + b"\0" + POLICY.encode()[60:], 1, 61, "a NUL byte inside the policy"),
        (POLICY.replace("1935", "90-80").encode(), 1, 62, 'the range "90-80" is reversed'),
        (POLICY.replace("to-ports", "toports").encode(), 1, 52, '<allow-access-from> has no attribute "toports"'),
        (b"<html>", 1, 1, "this is an HTML page"),
        (b'<?xml version="l.0"?>' + POLICY.encode(), 1, 1, 'the XML version is "l.0", with a letter in place'),
    ],
)


def first_error(data: bytes) -> str:
    errors = [finding for finding in lint(data) if finding.severity is Severity.ERROR]
    first = min(errors, key=lambda each: (not each.code.startswith("FP1"), each.line, each.column))
    return f"line {first.line}, column {first.column}: {first.message}; {first.instead}"


@PLACE_AND_WORDS
def test_first_error_has_place_and_words(data: bytes, line: int, column: int, words: str) -> None:
    assert first_error(data).startswith(f"line {line}, column {column}: {words}")


@PLACE_AND_WORDS
def test_server_merge_and_decision_name_the_first_error_of_lint(
    data: bytes, line: int, column: int, words: str
) -> None:
    expected = first_error(data)
    with pytest.raises(ConfigError) as refused:
        compile_text(data, "games.xml")
    assert str(refused.value) == f"games.xml:{line}:{column}: {expected.partition(': ')[2]}"
    with pytest.raises(PolicyError) as unmerged:
        merge_files([("games.xml", data)])
    assert str(unmerged.value) == f"games.xml:{line}:{column}: {expected.partition(': ')[2]}"
    error = Decider(data).error
    assert error is None or str(error) == expected


@pytest.mark.parametrize("path", sorted(CORPUS.iterdir()), ids=lambda path: path.stem)
def test_explained_is_the_first_error_of_lint_for_any_refused_file(path: Path) -> None:
    data = path.read_bytes()
    if not path.stem.startswith(("20-silverlight", "good-silverlight")):
        with suppress(PolicyError):
            compile_reply(data)
            return
        assert str(explained(PolicyError("refused", "", Location(1, 1)), data)) == first_error(data)


def test_explained_of_a_good_policy_in_the_other_dialect_is_the_error_itself() -> None:
    error = PolicyError("this is a Silverlight policy")
    assert explained(error, SILVERLIGHT.encode(), ["flash"]) is error


# ------------------------------------------------------------------------------------------------ bytes and dialects

SILVERLIGHT = (
    '<?xml version="1.0"?>\n<access-policy><cross-domain-access><policy><allow-from><domain uri="*"/></allow-from>'
    '<grant-to><socket-resource port="4502-4534" protocol="tcp"/></grant-to></policy></cross-domain-access>'
    "</access-policy>"
)


@pytest.mark.parametrize("clients", [("flash", "lightspark", "unity", "silverlight"), ("silverlight",)])
@pytest.mark.parametrize("begin", ["\ufeff", " \n", "\ufeff\r\n\r\n"])
def test_lint_bytes_before_a_silverlight_policy_concern_no_other_client(clients: tuple[str, ...], begin: str) -> None:
    assert lint((begin + SILVERLIGHT).encode(), clients=clients) == []


@pytest.mark.parametrize("begin", ["\ufeff", " \n"])
def test_lint_bytes_before_a_silverlight_policy_for_flash_name_only_the_dialect(begin: str) -> None:
    assert [finding.code for finding in lint((begin + SILVERLIGHT).encode(), clients=["flash"])] == ["FP117"]


def test_lint_damaged_silverlight_policy_concerns_only_silverlight() -> None:
    [finding] = lint(("\ufeff" + SILVERLIGHT.replace('uri="*"', "uri=*")).encode())
    assert (finding.code, finding.clients) == ("FP110", ("silverlight",))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (("\ufeff" + SILVERLIGHT.replace('<?xml version="1.0"?>', "")).encode("utf-16-le"), []),
        (SILVERLIGHT.replace('<?xml version="1.0"?>\n', "").encode("utf-16-le"), ["FP106"]),
        (("\ufeff" + POLICY).encode("utf-16-le"), ["FP106"]),
    ],
)
def test_lint_utf16_by_dialect(data: bytes, expected: list[str]) -> None:
    assert [finding.code for finding in lint(data)] == expected


@pytest.mark.parametrize("rest", [b"\0\0", b"\0\n", b"\0\r\n", b"\0 \0", b"\0</html>", b"\0" + POLICY.encode()])
def test_bytes_after_the_nul_are_a_warning_and_are_not_served(rest: bytes) -> None:
    [finding] = lint(POLICY.encode() + rest, clients=["flash"])
    assert (finding.code, finding.severity) == ("FP118", Severity.WARNING)
    assert (finding.line, finding.column) == (1, len(POLICY) + 1)
    assert compile_text(POLICY.encode() + rest) == POLICY.encode() + b"\0"
    assert b"1935" in merge_files([("a", POLICY.encode() + rest)])
    assert Decider(POLICY.encode() + rest).decide("http://a.example/", 1935)[0].allowed


def test_one_nul_at_the_end_is_no_finding() -> None:
    assert lint(POLICY.encode() + b"\0") == []


# ------------------------------------------------------------------------------------------ elements before the root


@pytest.mark.parametrize(
    ("text", "code", "advice"),
    [
        (GRANT + POLICY, "FP119", "move it inside <cross-domain-policy>"),
        (GRANT + GRANT + "\n" + POLICY, "FP119", "move it inside <cross-domain-policy>"),
        (f"<?xml version='1.0'?><!-- x -->{GRANT.replace('/>', '></allow-access-from>')}{POLICY}", "FP119", "move it"),
        ("<site-control/>" + POLICY, "FP119", "move it inside <cross-domain-policy>"),
        ("<br/>" + POLICY, "FP119", "remove it"),
        ("<allow-acces-from/>" + POLICY, "FP119", "write <allow-access-from>, and move it inside"),
        ("<allow-http-request-headers-from/>" + POLICY, "FP119", "remove it"),
        ("<domain uri='*'/>" + POLICY, "FP119", "remove it"),
        (GRANT.replace("/>", ">") + POLICY, "FP119", "move it inside <cross-domain-policy>"),
        (f"{GRANT.replace('/>', '>')}{POLICY}</allow-access-from>", "FP119", "move it inside <cross-domain-policy>"),
        ("<domain uri='*'/><access-policy/>", "FP119", "move it inside <access-policy>"),
        (GRANT, "FP116", "write <cross-domain-policy> before and </cross-domain-policy> after all elements"),
        ("<!-- <cross-domain-policy> -->" + GRANT, "FP116", "write <cross-domain-policy> before"),
        (f"<policies>{POLICY}</policies>", "FP115", "write only <cross-domain-policy>, which is inside it"),
    ],
)
def test_lint_element_before_the_root_has_advice_by_where_the_root_is(text: str, code: str, advice: str) -> None:
    [finding] = lint(text.encode(), clients=["flash"])
    assert (finding.code, finding.instead.startswith(advice)) == (code, True)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("<cross-domain-policy>&lt;allow-access-from/&gt;</cross-domain-policy>", "FP112"),
        (f"<cross-domain-policy><![CDATA[{GRANT}]]></cross-domain-policy>", "FP112"),
        ("\ufeff\ufeff" + POLICY, "FP110"),
        ("<?xml version='1.0'?>\ufeff" + POLICY, "FP110"),
        (POLICY + "\u00a0", "FP110"),
        ("\u200b" + POLICY, "FP110"),
        ("\u00ef\u00bb\u00bf" + POLICY, "FP110"),
        (POLICY.replace("<allow", "\u201c<allow"), "FP112"),
    ],
)
def test_lint_one_mistake_is_one_finding(text: str, code: str) -> None:
    assert [finding.code for finding in lint(text.encode()) if finding.code != "FP604"] == [code]


def test_lint_a_default_namespace_has_advice() -> None:
    [finding] = lint(POLICY.replace("<cross", "<cross", 1).replace("policy>", 'policy xmlns="x">', 1).encode())
    assert finding.instead == "write the element without a namespace"


@pytest.mark.parametrize(
    ("domain", "code", "advice"),
    [
        (".example.com", "FP315", 'write "*.example.com" for the domain'),
        (":80", "FP314", "write the host name of a site"),
        ("http://", "FP314", "write the host name of a site"),
        ("https:///x", "FP314", "write the host name of a site"),
        ("http://*.*", "FP305", 'write only its host name: "www.example.com"'),
        ("http://*.example.com/", "FP305", 'write only its host name: "*.example.com"'),
        ("//example.com", "FP305", 'write only its host name: "example.com"'),
        ("https://:80/", "FP314", "write the host name of a site"),
    ],
)
def test_lint_domain_advice_can_be_followed(domain: str, code: str, advice: str) -> None:
    text = f'<cross-domain-policy><allow-access-from domain="{domain}" to-ports="1935"/></cross-domain-policy>'
    [finding] = lint(text.encode(), clients=["flash"])
    assert (finding.code, finding.instead[: len(advice)]) == (code, advice)


def test_parse_silverlight_policy_with_a_printed_nul_has_its_own_advice() -> None:
    [finding] = lint(SILVERLIGHT.encode() + b"\\0")
    assert finding.instead == "remove it: Silverlight's policies end without a NUL"
