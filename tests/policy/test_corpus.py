"""Files as operators write them, good and broken in the ways they broke theirs, and what lint says of each.

`good-*` are live files of different styles. A number is that of the way it is broken (facts, "The twenty things
that go wrong for operators"); the others concern what a policy gives away, and sizes. A name that ends in a number
of a port says where the file is served from. Expected: codes with their lines, for all clients.
"""

import re
from pathlib import Path

import pytest

from flashpol.policy import PolicyError, Severity, compile_reply, lint

CORPUS = Path(__file__).parent / "corpus"

EXPECTED = {
    "03-curly-quotes-cp1252": "FP109:2",
    "03-curly-quotes-mixed": "FP109:2 FP109:3",
    "03-curly-quotes-utf8": "FP109:2",
    "03-en-dash-comment": "FP109:2",
    "03-en-dash-in-ports": "FP109:2",
    "03-escaped-by-blog": "FP110:1",
    "03-non-breaking-spaces": "FP109:2",
    "03-root-stripped": "FP116:1",
    "03-tags-stripped": "FP110:1",
    "05-crossdomain-for-http": "FP502:4 FP401:5 FP202:6",
    "05-html-page": "FP104:1",
    "05-http-404": "FP103:1",
    "05-http-reply": "FP103:1 FP401:7",
    "06-request-instead": "FP115:1",
    "12-dots-for-range": "FP405:2",
    "12-empty-to-ports": "FP402:2",
    "12-leading-zero": "FP410:2",
    "12-missing-to-ports": "FP401:3",
    "12-port-too-high": "FP408:2",
    "12-port-zero": "FP407:2",
    "12-reversed-range": "FP409:2",
    "12-semicolons": "FP405:2",
    "12-spaces": "FP411:2 FP406:3",
    "12-star-and-ports": "FP404:2",
    "12-to-port": "FP205:2",
    "12-to-ports-camel-case": "FP205:2",
    "12-trailing-comma": "FP403:2",
    "12-word-for-port": "FP405:2",
    "13-all-ports-5222": "FP702:2",
    "13-low-ports-5222": "FP508:2 FP509:3",
    "14-ip-and-host": "FP702:2 FP313:3",
    "14-ip-wildcard": "FP303:2 FP303:3 FP311:4",
    "15-capitals": "FP503:2",
    "15-empty-site-control": "FP501:2",
    "15-ftp-value": "FP502:2",
    "15-late-site-control": "FP208:3",
    "15-master-only-843": "FP507:2",
    "15-none-with-grants": "FP505:2",
    "15-site-control-5222": "FP506:2 FP709:2",
    "15-two-site-controls": "FP504:3",
    "16-ampersand": "FP110:3",
    "16-billion-laughs": "FP111:2",
    "16-blank-line-first": "FP114:1",
    "16-capital-tags": "FP115:1 FP201:2",
    "16-cut-off": "FP110:3",
    "16-double-hyphen": "FP110:2",
    "16-duplicate-attribute": "FP110:2",
    "16-empty": "FP102:1",
    "16-misspelt-element": "FP201:2",
    "16-nested": "FP204:3",
    "16-no-space-between": "FP110:2",
    "16-not-closed": "FP110:3",
    "16-php-warning": "FP110:1",
    "16-text-inside": "FP112:2",
    "16-two-documents": "FP110:4",
    "16-unknown-entity": "FP111:2",
    "16-unquoted": "FP110:2",
    "16-version-letter-l": "FP110:1",
    "17-accent-in-comment": "FP708:2",
    "17-bom": "FP113:1",
    "17-declared-utf-16": "FP108:1",
    "17-java-writeutf": "FP105:1",
    "17-latin-1-undeclared": "FP108:2",
    "17-nul-inside": "FP118:4",
    "17-utf-16": "FP106:1",
    "18-empty-domain": "FP302:2",
    "18-international": "FP310:2 FP708:2",
    "18-ipv6": "FP307:2",
    "18-name-with-dots": "FP312:2",
    "18-no-domain": "FP301:2",
    "18-partial-wildcard": "FP304:2 FP304:3 FP304:4",
    "18-port-in-domain": "FP306:2",
    "18-several-domains": "FP309:2",
    "18-space-around": "FP308:2",
    "18-url-as-domain": "FP305:2",
    "20-adobe-with-silverlight": "FP203:3",
    "20-flash-on-943": "FP511:1",
    "20-lightspark-range": "FP702:2 FP701:2",
    "20-silverlight-4501": "FP806:9",
    "20-silverlight-bare-host": "FP804:6",
    "20-silverlight-list": "FP805:9",
    "20-silverlight-no-grant": "FP802:8",
    "20-silverlight-on-843": "FP811:2",
    "20-silverlight-out-of-range": "FP806:9",
    "20-silverlight-star-port": "FP806:9",
    "20-silverlight-tcp-capital": "FP807:9",
    "20-silverlight-web": "FP809:5 FP809:9",
    "20-silverlight-with-adobe": "FP808:4",
    "20-unity-domain": "FP702:2",
    "20-unity-range": "FP701:2 FP703:2",
    "covered": "FP602:3",
    "good-adobe-sample": "FP702:6",
    "good-chat-inline": "",
    "good-crlf": "",
    "good-declared-latin-1": "FP708:3",
    "good-delegating-master": "",
    "good-intranet-addresses": "FP702:2",
    "good-macromedia-doctype": "",
    "good-master": "",
    "good-one-line": "",
    "good-range-for-unity": "FP701:2",
    "good-schema": "FP702:4",
    "good-secure-false": "",
    "good-silverlight-host": "",
    "good-silverlight": "",
    "good-single-quotes": "",
    "good-upper-case-host": "FP702:2",
    "http-schema": "FP207:1",
    "identity": "FP202:3",
    "grants-nothing": "FP607:1",
    "repeated-ports": "FP412:2",
    "secure-beside-plain": "FP603:3",
    "secure-yes": "FP206:2",
    "secure": "FP702:2 FP608:2",
    "size-4050": "FP704:1 FP705:1",
    "size-5100": "FP705:1 FP706:1",
    "space-after-newline": "FP707:4",
    "trailing-space": "FP707:3",
    "twice": "FP601:4",
    "wide-open": "FP604:3",
    "wide-range": "FP604:2 FP701:2 FP703:2",
    "wide-service-ports": "FP606:2",
    "wide-top-level": "FP605:2 FP702:2",
}

# Lint is stricter than the reader here: the file can be read, but no content could connect by these grants.
UNUSABLE = {
    "13-low-ports-5222",
    "15-none-with-grants",
}
SILVERLIGHT = "silverlight"


def served_from(name: str) -> int | None:
    port = re.search(r"-(5222|843|943)$", name)
    return int(port[1]) if port else None


def test_corpus_every_file_has_expectations() -> None:
    assert {path.stem for path in CORPUS.iterdir()} == set(EXPECTED)
    assert len(EXPECTED) >= 60


@pytest.mark.parametrize("name", EXPECTED)
def test_corpus_file_has_the_expected_findings(name: str) -> None:
    found = lint((CORPUS / f"{name}.xml").read_bytes(), served_from=served_from(name))
    assert " ".join(f"{finding.code}:{finding.line}" for finding in found) == EXPECTED[name]


@pytest.mark.parametrize("name", [name for name in EXPECTED if SILVERLIGHT not in name])
def test_corpus_file_has_errors_exactly_if_it_cannot_be_served(name: str) -> None:
    data = (CORPUS / f"{name}.xml").read_bytes()
    errors = [f for f in lint(data, served_from=served_from(name)) if f.severity is Severity.ERROR]
    try:
        compile_reply(data)
    except PolicyError:
        assert errors
    else:
        assert bool(errors) == (name in UNUSABLE)


@pytest.mark.parametrize("name", [name for name in EXPECTED if name.startswith("good-")])
def test_corpus_good_file_has_no_error_and_no_finding_for_flash(name: str) -> None:
    data = (CORPUS / f"{name}.xml").read_bytes()
    assert not any(finding.severity is Severity.ERROR for finding in lint(data))
    assert lint(data, clients=["silverlight" if SILVERLIGHT in name else "flash"]) == []
