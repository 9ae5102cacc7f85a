"""What counts as a policy; the cases by kind are in test_reply.py."""

import time

import pytest

from flashpol.probe.recognition import is_html, is_policy


@pytest.mark.parametrize(
    "piece", ["<?x?>", "<!--", "<!-- -->", "<a>", "<a></b>", "<!DOCTYPE a[", "< ", "&lt;", "\\x3c", "<p"]
)
def test_is_policy_of_hostile_text_is_fast(piece: str) -> None:
    """A text of 100,000 characters, the most that is read of a reply."""
    text = piece * (100_000 // len(piece))
    began = time.process_time()
    assert not is_policy(text)
    assert not is_html(text)
    assert time.process_time() - began < 1


@pytest.mark.parametrize(
    ("text", "html"),
    [
        ("<html>", True),
        ("\n <!-- x --><!DOCTYPE html><p>x", True),
        ("<?xml version='1.0'?><html xmlns='http://www.w3.org/1999/xhtml'/>", True),
        ("<htm>", False),
        ("x <html>", False),
    ],
)
def test_is_html_needs_the_first_tag(text: str, html: bool) -> None:
    assert is_html(text) is html


@pytest.mark.parametrize(("text", "policy"), [("<cr", True), ("<acc", True), ("<c", False), ("<cr ", False)])
def test_is_policy_of_a_reply_cut_off_in_its_first_tag(text: str, policy: bool) -> None:
    """A server that sends a byte a second has sent so much when clients give up."""
    assert is_policy(text) is policy
