"""Lint: the table is sound, every example does what it says, and no bytes make it raise."""

import doctest
import importlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_flash import WORDS, policies

from flashpol.policy import Finding, PolicyError, Severity, compile_reply, lint, parse, render
from flashpol.policy.findings import CLIENTS
from flashpol.policy.rules import GROUPS, RULES, Rule
from flashpol.policy.rules.markdown import page
from testkit.examples import examples

ROOT = Path(__file__).parents[2]
EXAMPLE = (ROOT / "examples" / "policy.xml").read_bytes()
BY_CODE = pytest.mark.parametrize("rule", RULES, ids=lambda rule: f"{rule.code}-{rule.name}")

thorough = examples(300)


def encoded(example: str | bytes) -> bytes:
    return example if isinstance(example, bytes) else example.encode()


def flash(*lines: str) -> bytes:
    return "\n".join(["<cross-domain-policy>", *lines, "</cross-domain-policy>"]).encode()


def grant(domain: str = "*", ports: str = "1935", more: str = "") -> str:
    return f'<allow-access-from domain="{domain}" to-ports="{ports}"{more}/>'


def codes(data: bytes, **options: object) -> list[str]:
    return [finding.code for finding in lint(data, **options)]  # type: ignore[arg-type]


# ------------------------------------------------------------------------------------------------------------ the table


@BY_CODE
def test_rule_bad_example_breaks_only_this_rule(rule: Rule) -> None:
    found = lint(
        encoded(rule.bad), served_from=rule.served_from, clients=[rule.example_client], by_url=rule.only_by_url
    )
    assert {finding.code for finding in found} == {rule.code}


@BY_CODE
def test_rule_good_example_breaks_no_rule(rule: Rule) -> None:
    found = lint(encoded(rule.good), served_from=rule.good_port, clients=[rule.example_client], by_url=rule.only_by_url)
    assert found == []


@BY_CODE
def test_rule_fields_are_complete(rule: Rule) -> None:
    assert rule.code[:3] in GROUPS
    assert rule.clients
    assert set(rule.clients) <= set(CLIENTS)
    assert rule.wrong
    assert "\n" not in rule.wrong + rule.instead
    assert not rule.trap or rule.severity is not Severity.ERROR


def test_rules_codes_and_names_are_unique() -> None:
    assert len({rule.code for rule in RULES}) == len({rule.name for rule in RULES}) == len(RULES)


def test_rules_page_matches_the_registry() -> None:
    assert (ROOT / "docs" / "rules.md").read_text() == page(), "python docs/generate.py"


def test_lint_docstring_example_runs() -> None:
    result = doctest.testmod(importlib.import_module("flashpol.policy.lint"))
    assert result.attempted > 0
    assert result.failed == 0


# ------------------------------------------------------------------------------------------------- severity and clients


@pytest.mark.parametrize("rule", [rule for rule in RULES if rule.trap], ids=lambda rule: rule.code)
def test_lint_trap_with_its_client_named_is_an_error(rule: Rule) -> None:
    for clients, severity in ((CLIENTS, rule.severity), (rule.clients, Severity.ERROR)):
        found = lint(encoded(rule.bad), served_from=rule.served_from, clients=clients)
        assert {finding.severity for finding in found if finding.code == rule.code} == {severity}


def test_lint_with_a_client_named_skips_rules_of_others() -> None:
    data = flash(grant("*.example.com", "8000-8100"))
    assert codes(data) == ["FP702", "FP701"]
    assert codes(data, clients=["flash"]) == []
    assert codes(data, clients=["lightspark"]) == ["FP701"]
    assert codes(data, clients=["unity"]) == ["FP702"]
    assert codes(data, clients=["silverlight"]) == ["FP117"]


@pytest.mark.parametrize("clients", [(), ("netscape",), ("flash", "all")])
def test_lint_with_unknown_clients_raises_value_error(clients: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="flash, lightspark, unity, silverlight"):
        lint(b"", clients=clients)


def test_lint_published_example_is_clean_for_flash() -> None:
    assert lint(EXAMPLE, clients=["flash"]) == []
    assert not any(finding.severity is Severity.ERROR for finding in lint(EXAMPLE))


# ------------------------------------------------------------------------------------------------------ served from


@pytest.mark.parametrize(
    ("served_from", "ports", "expected"),
    [
        (None, "80", []),
        (843, "80", []),
        (1023, "80", []),
        (1024, "80", ["FP508"]),
        (5222, "80,443", ["FP508"]),
        (5222, "1023", ["FP508"]),
        (5222, "1024", []),
        (5222, "80,5222", ["FP509"]),
        (5222, "1000-1100", ["FP509"]),
        (5222, "*", ["FP604"]),
        (25, "1935", ["FP510"]),
        (750, "1935", ["FP510"]),
        (943, "1935", ["FP511"]),
    ],
)
def test_lint_ports_by_the_port_that_serves(served_from: int | None, ports: str, expected: list[str]) -> None:
    assert codes(flash(grant(ports=ports)), served_from=served_from, clients=["flash"]) == expected


@pytest.mark.parametrize(
    ("served_from", "meta", "expected"),
    [
        (None, "none", ["FP505"]),
        (843, "none", ["FP505"]),
        (5222, "none", ["FP506", "FP709"]),
        (None, "master-only", []),
        (843, "master-only", ["FP507"]),
        (5222, "master-only", ["FP506", "FP709"]),
        (843, "all", []),
    ],
)
def test_lint_site_control_by_the_port_that_serves(served_from: int | None, meta: str, expected: list[str]) -> None:
    data = flash(f'<site-control permitted-cross-domain-policies="{meta}"/>', grant())
    assert codes(data, served_from=served_from) == expected


# -------------------------------------------------------------------------------------------------- grants side by side


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([grant(), grant()], [("FP601", 3)]),
        ([grant(), grant(), grant()], [("FP601", 3), ("FP601", 4)]),
        ([grant(ports="1,2"), grant(ports="2,1")], [("FP601", 3)]),
        ([grant(ports="1935"), grant("a.com")], [("FP602", 3)]),
        ([grant("a.com"), grant(ports="1935")], [("FP602", 2)]),
        ([grant("*.a.com"), grant("a.com")], [("FP602", 3)]),
        ([grant("*.a.com"), grant("b.a.com")], [("FP602", 3)]),
        ([grant("*.a.com"), grant("*.b.a.com")], [("FP602", 3)]),
        ([grant("*.a.com"), grant("ba.com")], []),
        ([grant("*.a.com"), grant("*.com", "80")], [("FP605", 3)]),
        ([grant("a.com", "80-90"), grant("a.com", "85")], [("FP602", 3)]),
        ([grant("a.com", "80-90"), grant("a.com", "85-95")], []),
        ([grant("a.com", "80,90"), grant("a.com", "80-90")], [("FP602", 2)]),
        ([grant("a.com", "80,90"), grant("a.com", "85")], []),
        ([grant("a.com", "80"), grant("a.com", "80", ' secure="true"')], [("FP603", 3)]),
        ([grant("a.com", "80", ' secure="true"'), grant("a.com", "80")], [("FP603", 2)]),
        ([grant("*", "80", ' secure="true"'), grant("a.com", "80")], [("FP608", 2)]),
        ([grant("*.0.0.1"), grant("10.0.0.1")], [("FP303", 2)]),
        ([grant("*.a.com", "5000-6000"), *[grant("*.a.com", str(port)) for port in (5000, 6000, 6001)]],
         [("FP606", 2), ("FP602", 3), ("FP602", 4)]),
    ],
)  # fmt: skip
def test_lint_redundant_grants(lines: list[str], expected: list[tuple[str, int]]) -> None:
    assert [(finding.code, finding.line) for finding in lint(flash(*lines), clients=["flash"])] == expected


# ------------------------------------------------------------------------------------------------------------- places


def test_lint_reports_all_mistakes_not_only_the_first() -> None:
    data = flash(grant("http://a.com", "90-80,0,x"), grant("a.*.com", "70000"))
    assert codes(data, clients=["flash"]) == ["FP305", "FP405", "FP407", "FP409", "FP304", "FP408"]


def test_finding_excerpt_has_a_caret_under_the_place() -> None:
    [finding] = lint(flash("\t" + grant(ports="90-80")))
    assert (finding.line, finding.column) == (2, 42)
    source, caret = finding.excerpt().split("\n")
    assert source[len(caret) - 1 :].startswith("90-80")
    assert "\t" not in source
    assert str(finding).startswith(
        'line 2, column 42: error FP409: the range "90-80" is reversed; write "80-90" (flash'
    )


def test_finding_in_a_long_line_shows_a_part() -> None:
    data = flash("<!-- " + "x" * 5000 + " -->" + grant(ports="90-80") + "<!-- " + "y" * 5000 + " -->")
    finding = next(finding for finding in lint(data) if finding.code == "FP409")
    assert len(finding.source) < 130
    assert finding.source[finding.caret :].startswith("90-80")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_lint_lines_end_as_in_xml(end: str) -> None:
    data = flash(grant(), grant(ports="0")).replace(b"\n", end.encode())
    [finding] = lint(data)
    assert (finding.line, finding.code) == (3, "FP407")
    assert "domain" in finding.source


def test_finding_source_shows_the_line_as_written() -> None:
    wrong = flash(grant())
    assert lint(b"HTTP/1.0 200 OK\r\n\r\n" + wrong)[0].source == "HTTP/1.0 200 OK"
    assert lint(b"\0" + bytes((len(wrong),)) + wrong)[0].source == "\u00b7" + chr(len(wrong)) + "<cross-domain-policy>"
    assert lint(wrong.replace(b"\n", b"\n\0", 1))[0].source.startswith("\u00b7<allow")


def test_lint_after_a_mistake_in_the_bytes_reads_the_rest() -> None:
    wrong = flash(grant(ports="0"))
    for data, first in (
        (len(wrong).to_bytes(2, "big") + wrong, "FP105"),
        (b"HTTP/1.0 200 OK\r\nServer: x\r\n\r\n" + wrong, "FP103"),
        (wrong.replace(b"\n", b"\n\0", 1), "FP107"),
        (wrong.replace(b'domain="*"', b"domain=\x93*\x94"), "FP109"),
        (wrong.replace(b'domain="*"', "domain=\u201c*\u201d".encode()), "FP109"),
        (wrong.replace(b"\n", b"\n<!-- \xe9 -->", 1), "FP108"),
        (wrong.replace(b"\n", "\n<!\u2013 x \u2013>".encode(), 1), "FP109"),
        (wrong.replace(b"\n", b"\nhello", 1), "FP112"),
    ):
        assert codes(data, clients=["flash"]) == [first, "FP407"]


def test_lint_typography_outside_of_tags_is_malformed_xml() -> None:
    assert codes("\u00a0".encode() + flash(grant()), clients=["flash"]) == ["FP110"]


# ------------------------------------------------------------------------------------------------------ whatever comes


def check_all(data: bytes) -> list[Finding]:
    found = lint(data)
    assert found == lint(data)
    lines = max(1, data.count(b"\n") + data.count(b"\r") + 1)
    for finding in found:
        assert 1 <= finding.line <= lines
        assert finding.column >= 1
        assert finding.caret >= 0
        assert "\n" not in finding.message + finding.instead + finding.source
        assert "{" not in finding.message or b"{" in data or "{" in data.decode("utf-16", "ignore")
    lint(data, served_from=5222, clients=["unity"])
    lint(data, served_from=943, clients=["silverlight"])
    return found


@given(st.binary(max_size=200))
@thorough
def test_lint_any_bytes_never_raises(data: bytes) -> None:
    assert check_all(data), "no bytes without XML are clean"


@given(st.lists(st.sampled_from(WORDS), max_size=25).map("".join), st.sampled_from(["utf-8", "utf-16", "cp1252"]))
@thorough
def test_lint_pieces_of_policies_never_raises(text: str, encoding: str) -> None:
    check_all(text.encode(encoding, "replace"))


ORIGINALS = [EXAMPLE, *(encoded(rule.good) for rule in RULES), *(encoded(rule.bad) for rule in RULES)]


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    data = draw(st.sampled_from(ORIGINALS))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data)))
        until = at + draw(st.integers(0, 6))
        data = data[:at] + draw(st.sampled_from(WORDS).map(str.encode) | st.binary(max_size=3)) + data[until:]
    return data


@given(mutated())
@thorough
def test_lint_mutation_has_an_error_exactly_if_it_cannot_be_served(data: bytes) -> None:
    """A file has an error if and only if the server could not use it, or no client could connect by it."""
    errors = {finding.code for finding in check_all(data) if finding.severity is Severity.ERROR}
    try:
        compile_reply(data)
    except PolicyError:
        assert errors or b"<access-policy" in data
    else:
        assert errors <= {"FP109", "FP505"}


@given(policies)
@thorough
def test_lint_rendered_policy_has_no_error(policy: object) -> None:
    data = render(policy)  # type: ignore[arg-type]
    assert parse(data) == policy
    errors = {finding.code for finding in check_all(data) if finding.severity is Severity.ERROR}
    assert errors <= {"FP505"}


@pytest.mark.parametrize(
    ("domain", "code", "advice"),
    [
        ("//example.com", "FP305", '"example.com"'),
        ("//example.com/x.swf", "FP305", '"example.com"'),
        ("http://user@a.example:80/x", "FP305", '"a.example"'),
        ("http:a.example", "FP305", '"a.example"'),
        ("https://*", "FP305", '"*"'),
        ("a.example/", "FP305", '"a.example"'),
        ("http://", "FP314", 'only by "*"'),
        ("file:///games/x.swf", "FP314", 'only by "*"'),
        ("app:/Main.swf", "FP314", 'only by "*"'),
        ("C:\\games", "FP314", 'only by "*"'),
        ("/", "FP314", 'only by "*"'),
        ("*.*", "FP304", 'write "*" alone'),
        ("*.*.*.*", "FP304", 'write "*" alone'),
        ("10.*.*.*", "FP303", "write each address in full"),
    ],
)
def test_lint_domain_advice_can_be_followed(domain: str, code: str, advice: str) -> None:
    [finding] = lint(flash(grant(domain)), clients=["flash"])
    assert (finding.code, advice in finding.instead) == (code, True)
    assert '""' not in finding.instead


@pytest.mark.parametrize(
    ("domain", "ports", "words"),
    [
        ("*", "' + port + '", "program source that was not evaluated"),
        ("*", "$port", "program source that was not evaluated"),
        ("*", "%d", "program source that was not evaluated"),
        ("*", "80\\n", 'the characters "\\n" in place of a line break'),
        ("*", "80/n", 'the characters "/n" in place of a line break'),
        ("*", "80;", 'the end of a statement of program source (";")'),
        ("*", "&quot;80&quot;", "a quote of program source"),
        ("' + host + '", "80", "program source that was not evaluated"),
        ("{{ host }}", "80", "program source that was not evaluated"),
        ("&lt;?= $host ?&gt;", "80", "program source that was not evaluated"),
    ],
)
def test_lint_debris_of_program_source_in_a_value_is_named(domain: str, ports: str, words: str) -> None:
    [finding] = lint(flash(grant(domain, ports)), clients=["flash"])
    assert finding.code in ("FP312", "FP405")
    assert finding.message.endswith(f": {words}")


@pytest.mark.parametrize("ports", ["80,x", "1935;843", "8000..8100"])
def test_lint_other_values_are_not_called_program_source(ports: str) -> None:
    [finding] = lint(flash(grant(ports=ports)), clients=["flash"])
    assert "source" not in finding.message
