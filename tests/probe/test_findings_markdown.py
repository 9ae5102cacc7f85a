"""docs/probe.md: each finding has its texts, and each problem of operators its findings."""

import re

import pytest

from flashpol.policy.rules import RULES as LINT_RULES
from flashpol.probe.findings import GROUPS, RULES, Rule
from flashpol.probe.findings.markdown import PROBLEMS, page


def test_problems_name_only_known_codes() -> None:
    assert len(PROBLEMS) >= 20
    known = {rule.code for rule in RULES} | {rule.code for rule in LINT_RULES}
    for what, codes in PROBLEMS:
        assert codes, what
        assert known.issuperset(codes), what


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.code)
def test_rule_is_well_formed(rule: Rule) -> None:
    assert re.fullmatch(r"PB[1-9][0-9]{2}", rule.code)
    assert rule.code[:3] in GROUPS
    assert re.fullmatch(r"[a-z0-9-]+", rule.name)
    for text in (rule.wrong, rule.instead, rule.seen):
        assert not text.endswith("."), "in one line with others"
    assert f"### {rule.code} {rule.name}\n" in page()
