"""From a policy source to the bytes that are served, or one line that says why not."""

import logging
import os
from pathlib import Path

import pytest

from flashpol.config import Address, Config, ConfigError, Listener, PolicySource, Server
from flashpol.policy import allow_policy, compile_reply, parse, render
from flashpol.serving.policies import (
    compile_all,
    compile_file,
    compile_grants,
    compile_path,
    compile_source,
    compile_text,
    fragments,
)
from testkit.processes import POLICY, as_nobody

XML = b'<cross-domain-policy><allow-access-from domain="*" to-ports="843"/></cross-domain-policy>'


SILVERLIGHT = b"<access-policy><cross-domain-access></cross-domain-access></access-policy>"


def refused(source: PolicySource, dialect: str = "flash") -> str:
    with pytest.raises(ConfigError) as caught:
        compile_source(source, dialect)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.mark.parametrize("end", [b"", b"\0", b"\n", b"\n\0"])
def test_compile_source_of_a_flash_file_is_its_bytes_and_one_nul(tmp_path: Path, end: bytes) -> None:
    file = tmp_path / "p.xml"
    file.write_bytes(XML + end)
    assert compile_source(PolicySource("p", file=file)) == XML + end.removesuffix(b"\0") + b"\0"


def test_compile_source_of_the_example_policy_succeeds() -> None:
    assert compile_source(PolicySource("p", file=POLICY)) == POLICY.read_bytes() + b"\0"


def test_compile_source_of_grants_renders_them() -> None:
    grants = ("*.example.com:1935,8000-8100", "a.example:80")
    reply = compile_source(PolicySource("p", grants=grants))
    assert reply.endswith(b"\0")
    assert parse(reply) == allow_policy(grants)


def test_compile_source_of_a_malformed_grant_is_refused() -> None:
    assert refused(PolicySource("games", grants=("a.example:1", "b.example:0"))).startswith(
        'policy games: in "b.example:0": '
    )


@pytest.mark.parametrize(
    ("name", "why"), [("none.xml", "No such file"), (".", "Is a directory"), ("x" * 300, "too long")]
)
def test_compile_source_of_an_unreadable_file_says_why(tmp_path: Path, name: str, why: str) -> None:
    message = refused(PolicySource("p", file=tmp_path / name))
    assert message.startswith(f"{tmp_path / name}: cannot be read: ")
    assert why in message


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can try it as another user")
def test_compile_source_of_another_users_file_is_refused(tmp_path: Path) -> None:
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
        (XML[:-1], 'has no ">"'),
    ],
)
def test_compile_source_of_a_file_that_is_no_policy_is_refused(tmp_path: Path, data: bytes, words: str) -> None:
    file = tmp_path / "p.xml"
    file.write_bytes(data)
    message = refused(PolicySource("p", file=file))
    assert message.startswith(f"{file}:1:")
    assert words in message


def test_compile_of_an_endless_file_stops_at_the_limit() -> None:
    with pytest.raises(ConfigError) as caught:
        compile_path(Path("/dev/zero"))
    assert str(caught.value).startswith("/dev/zero: the policy has more than 1,048,576 bytes; ")
    assert refused(PolicySource("p", file=Path("/dev/zero"))).startswith("/dev/zero: is a device; ")


def test_compile_path_and_text_need_no_configuration(tmp_path: Path) -> None:
    (tmp_path / "p.xml").write_bytes(XML)
    assert compile_file(tmp_path / "p.xml") == compile_text(XML) == XML + b"\0"
    assert compile_grants(["*:843"]) == compile_source(PolicySource("p", grants=("*:843",)))
    for compile_one, wrong, where in ((compile_text, b"junk", "policy:1:1: "), (compile_grants, ["junk"], "allow: ")):
        with pytest.raises(ConfigError, match=f"^{where}"):
            compile_one(wrong)


# -------------------------------------------------------------------------------------------------------------- folders


def test_compile_source_of_a_folder_merges_it(tmp_path: Path) -> None:
    for name, grant in (("a", "*.com:80"), ("b", "a.com:80"), ("c", "a.net:81")):
        (tmp_path / f"{name}.xml").write_bytes(render(allow_policy([grant])))
    reply = compile_source(PolicySource("p", folder=tmp_path))
    assert reply == compile_reply(render(allow_policy(["*.com:80", "a.net:81"])))
    assert compile_path(tmp_path) == reply


def test_fragments_are_the_visible_xml_files(tmp_path: Path) -> None:
    for name in ("b.xml", "a.xml", ".hidden.xml", "c.xml~", "d.XML", "e.txt"):
        (tmp_path / name).touch()
    (tmp_path / "folder.xml").mkdir()
    assert [path.name for path in fragments(tmp_path)] == ["a.xml", "b.xml", "d.XML"]


def test_compile_source_of_a_bad_folder_is_refused(tmp_path: Path) -> None:
    source = PolicySource("p", folder=tmp_path)
    assert refused(source).startswith(f"{tmp_path}: no policy in this folder")
    (tmp_path / "a.xml").write_bytes(XML)
    (tmp_path / "b.xml").write_bytes(b"<cross-domain-policy>\n</x>")
    assert refused(source).startswith(f"{tmp_path}/b.xml:2:")
    (tmp_path / "b.xml").write_bytes(SILVERLIGHT)
    assert refused(source).startswith(f"{tmp_path}/b.xml:1:1: this is a Silverlight policy")
    (tmp_path / "b.xml").unlink()
    (tmp_path / "b.xml").symlink_to("nowhere")
    assert refused(source) == f"{tmp_path}/b.xml: cannot be read: No such file or directory"
    assert refused(PolicySource("p", folder=tmp_path / "none")).startswith(f"{tmp_path}/none: cannot be read: No such")
    assert refused(PolicySource("p", folder=tmp_path / "a.xml")) == f"{tmp_path}/a.xml: cannot be read: Not a directory"


# ------------------------------------------------------------------------------------------------------------- dialects


@pytest.mark.parametrize("end", [b"", b"\0", b"\n", b"\n\0"])
def test_compile_source_of_a_silverlight_file_is_its_bytes_without_nul(tmp_path: Path, end: bytes) -> None:
    file = tmp_path / "s.xml"
    file.write_bytes(SILVERLIGHT + end)
    assert compile_source(PolicySource("s", file=file), "silverlight") == SILVERLIGHT + end.removesuffix(b"\0")


def test_compile_source_in_the_wrong_dialect_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f.xml").write_bytes(XML)
    (tmp_path / "s.xml").write_bytes(SILVERLIGHT)
    flash, silver = (PolicySource("p", file=tmp_path / name) for name in ("f.xml", "s.xml"))
    assert refused(flash, "silverlight").startswith(f"{tmp_path}/f.xml:1:1: this is a Flash policy; serve it")
    assert refused(silver).startswith(f"{tmp_path}/s.xml:1:1: this is a Silverlight policy; serve it")
    assert "only Flash policies are merged" in refused(PolicySource("p", folder=tmp_path), "silverlight")
    assert refused(PolicySource("p", grants=("*:80",)), "silverlight").startswith("policy p: DOMAIN:PORTS is for Flash")


def test_compile_all_gives_each_listener_its_own_reply(tmp_path: Path) -> None:
    (tmp_path / "f.xml").write_bytes(XML)
    (tmp_path / "s.xml").write_bytes(SILVERLIGHT)
    (tmp_path / "x.xml").write_bytes(b"x")
    flash, silver, wrong = (PolicySource(name, file=tmp_path / f"{name}.xml") for name in "fsx")

    def compiled(*sources: PolicySource, listeners: tuple[tuple[str, str], ...]) -> list[bytes]:
        address = Address("127.0.0.1", 0)
        rows = tuple(Listener(None, address, policy, dialect) for policy, dialect in listeners)
        return compile_all(Config(Server(), sources, rows))

    rows = (("s", "silverlight"), ("f", "flash"), ("s", "silverlight"))
    assert compiled(flash, silver, listeners=rows) == [SILVERLIGHT, XML + b"\0", SILVERLIGHT]
    assert compiled(flash, silver, listeners=rows[:1]) == [SILVERLIGHT]
    assert compiled(flash, silver, listeners=rows[1:2]) == [XML + b"\0"]  # no listener uses the Silverlight policy
    for listeners in ((("s", "flash"),), (("f", "silverlight"),)):
        with pytest.raises(ConfigError, match=r"this is a (Flash|Silverlight) policy"):
            compiled(flash, silver, listeners=listeners)
    with pytest.raises(ConfigError, match=r"x\.xml:1:"):
        compiled(flash, wrong, listeners=rows[1:2])  # checked, though no listener uses it


LIGHTSPARK_RANGE = (
    b'<cross-domain-policy><allow-access-from domain="a.example" to-ports="80-90"/></cross-domain-policy>'
)
FORBIDDEN = (
    b'<cross-domain-policy><site-control permitted-cross-domain-policies="none"/>'
    b'<allow-access-from domain="a.example" to-ports="81"/></cross-domain-policy>'
)


def test_compile_text_with_a_lint_error_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "p.xml"
    file.write_bytes(FORBIDDEN)
    message = refused(PolicySource("p", file=file))
    assert message.startswith(f"{file}:1:")
    assert "FP505" in message


def test_compile_text_with_a_lint_warning_logs_it(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "p.xml"
    file.write_bytes(LIGHTSPARK_RANGE)
    logging.getLogger("flashpol").addHandler(caplog.handler)
    try:
        assert compile_source(PolicySource("p", file=file)) == LIGHTSPARK_RANGE + b"\0"
    finally:
        logging.getLogger("flashpol").removeHandler(caplog.handler)
    [line] = set(caplog.messages)
    assert line.startswith(f"{file}:1:")
    assert "FP701" in line


def test_compile_all_logs_errors_that_depend_on_the_port(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Served from 8430 it grants nothing, but a redirect may let clients see 843, which `served_from` says."""
    (tmp_path / "p.xml").write_bytes(
        b'<cross-domain-policy><allow-access-from domain="a.example" to-ports="81"/></cross-domain-policy>'
    )
    source = PolicySource("p", file=tmp_path / "p.xml")
    logging.getLogger("flashpol").addHandler(caplog.handler)
    try:
        for port, asked in ((843, None), (8430, 843), (8430, None)):
            listener = Listener("door", Address("127.0.0.1", port), "p", served_from=asked)
            compile_all(Config(Server(), (source,), (listener,)))
            expected = "FP710: " if 843 in (port, asked) else "FP508: "
            [line] = set(caplog.messages)
            assert line.startswith(f"listener door: {expected}")
            assert '<allow-access-from domain="a.example" to-ports="81"/>' in line
            caplog.clear()
    finally:
        logging.getLogger("flashpol").removeHandler(caplog.handler)
