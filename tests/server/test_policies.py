"""From a policy source to the bytes that are served, or one line that says why not."""

import os
from pathlib import Path

import pytest
from processes import POLICY, as_nobody

from flashpol.config import ConfigError, PolicySource
from flashpol.policy import allow_policy, parse
from flashpol.server.policies import compile_file, compile_grants, compile_source, compile_text

XML = b'<cross-domain-policy><allow-access-from domain="*" to-ports="843"/></cross-domain-policy>'


def refused(source: PolicySource) -> str:
    with pytest.raises(ConfigError) as caught:
        compile_source(source)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("end", [b"", b"\0", b"\n", b"\n\0"])
def test_a_file_is_served_byte_for_byte_with_one_nul(tmp_path: Path, end: bytes) -> None:
    file = tmp_path / "p.xml"
    file.write_bytes(XML + end)
    assert compile_source(PolicySource("p", file=file)) == XML + end.removesuffix(b"\0") + b"\0"


def test_the_example() -> None:
    assert compile_source(PolicySource("p", file=POLICY)) == POLICY.read_bytes() + b"\0"


def test_grants_are_rendered() -> None:
    grants = ("*.example.com:1935,8000-8100", "a.example:80")
    reply = compile_source(PolicySource("p", grants=grants))
    assert reply.endswith(b"\0")
    assert parse(reply) == allow_policy(grants)


def test_a_grant_that_is_none() -> None:
    assert refused(PolicySource("games", grants=("a.example:1", "b.example:0"))).startswith(
        'policy games: in "b.example:0": '
    )


@pytest.mark.parametrize(
    ("name", "why"), [("none.xml", "No such file"), (".", "Is a directory"), ("x" * 300, "too long")]
)
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str, why: str) -> None:
    message = refused(PolicySource("p", file=tmp_path / name))
    assert message.startswith(f"{tmp_path / name}: cannot be read: ")
    assert why in message


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can try it as another user")
def test_a_file_of_another_user(tmp_path: Path) -> None:
    file = tmp_path / "p.xml"
    file.write_bytes(XML)
    file.chmod(0o600)
    assert (
        as_nobody(lambda: compile_source(PolicySource("p", file=file)))
        == f"ConfigError: {file}: cannot be read: Permission denied"
    )


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b"\0", "is empty"),
        (b"hello", "root element"),
        (b"<html></html>", "HTML"),
        (XML[:-1], "line 1"),
    ],
)
def test_a_file_that_is_no_policy(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "p.xml"
    file.write_bytes(data)
    message = refused(PolicySource("p", file=file))
    assert message.startswith(f"{file}: ")
    assert words in message


def test_a_file_without_end() -> None:
    message = refused(PolicySource("p", file=Path("/dev/zero")))
    assert message.startswith("/dev/zero: the policy has 1,048,577 bytes; ")


def test_without_a_configuration(tmp_path: Path) -> None:
    (tmp_path / "p.xml").write_bytes(XML)
    assert compile_file(tmp_path / "p.xml") == compile_text(XML) == XML + b"\0"
    assert compile_grants(["*:843"]) == compile_source(PolicySource("p", grants=("*:843",)))
    for compile_one, wrong, where in ((compile_text, b"junk", "policy: "), (compile_grants, ["junk"], "allow: ")):
        with pytest.raises(ConfigError, match=f"^{where}"):
            compile_one(wrong)
