"""flashpol merge as operators run it: files, folders, standard input, an output that is replaced at once."""

import os
import subprocess
from pathlib import Path

import pytest

from flashpol.cli.files import replace
from flashpol.policy import merge_files, parse
from testkit.polling import DEADLINE
from testkit.processes import POLICY, ROOT, as_nobody, command, one_line, run

GRANT = '<cross-domain-policy>\n<allow-access-from domain="{}" to-ports="{}"/></cross-domain-policy>'
META = '<cross-domain-policy>\n<site-control permitted-cross-domain-policies="{}"/></cross-domain-policy>'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "d"
    path.mkdir()
    (path / "games.xml").write_text(GRANT.format("*.example.com", "1935"))
    (path / "chat.xml").write_text(GRANT.format("chat.example.com", "1935,6667"))
    (path / "notes.txt").write_text("not a policy")
    (path / ".#chat.xml").symlink_to("nowhere")
    (path / "old").mkdir()
    (path / "old" / "x.xml").write_text("not looked at")
    return path


def merged(*arguments: str | Path, **options: object) -> str:
    done = run("merge", *arguments, **options)
    assert (done.returncode, done.stderr) == (0, ""), done
    return done.stdout


def refused(*arguments: str | Path, **options: object) -> str:
    return one_line(run("merge", *arguments, **options), "flashpol merge")


def test_merge_folder_prints_one_policy(folder: Path) -> None:
    assert merged(folder) == (
        '<?xml version="1.0"?>\n<cross-domain-policy>\n'
        '<allow-access-from domain="*.example.com" to-ports="1935"/>\n'
        '<allow-access-from domain="chat.example.com" to-ports="1935,6667"/>\n'
        "</cross-domain-policy>\n"
    )


def test_merge_files_in_any_order_equal_their_folder(folder: Path) -> None:
    games, chat = folder / "games.xml", folder / "chat.xml"
    assert merged(games, chat) == merged(chat, games) == merged(folder) == merged(chat, folder, games)
    assert merged("--provenance", games, chat) == merged(chat, games, "--provenance") == merged("--provenance", folder)


def test_merge_provenance_names_each_source(folder: Path) -> None:
    lines = merged("--provenance", folder).splitlines()
    assert lines[2] == f"<!-- {folder}/games.xml:2:1 -->"
    assert parse("\n".join(lines).encode()) == parse(merged(folder).encode())


def test_merge_reads_standard_input(folder: Path) -> None:
    fragment = GRANT.format("a.net", "80")
    both = merged("-", folder, input=fragment)
    assert 'domain="a.net"' in both
    assert 'domain="*.example.com"' in both
    assert "<!-- -:2:1 -->" in merged("-", "--provenance", input=fragment)
    assert refused("-", input="").startswith("-:1:1: the policy is empty; ")


def test_merge_prints_what_the_library_returns() -> None:
    assert merged(POLICY).encode() == merge_files([("x", POLICY.read_bytes())]) + b"\n"


# --------------------------------------------------------------------------------------------------------------- output


def test_merge_output_is_created_and_replaced(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.xml"
    for arguments in ((folder / "games.xml",), (folder,)):
        assert merged(*arguments, "-o", out) == ""
        assert out.read_text() == merged(*arguments)
    assert sorted(os.listdir(tmp_path)) == ["d", "out.xml"]


def test_merge_new_output_follows_the_umask(folder: Path, tmp_path: Path) -> None:
    merged(folder, "-o", tmp_path / "out.xml", umask=0o027)
    assert (tmp_path / "out.xml").stat().st_mode & 0o7777 == 0o640


def test_merge_output_keeps_mode_and_symbolic_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "real.xml").write_text("old")
    (tmp_path / "real.xml").chmod(0o604)
    (tmp_path / "link.xml").symlink_to("real.xml")
    merged(folder, "-o", tmp_path / "link.xml")
    assert (tmp_path / "link.xml").is_symlink()
    assert (tmp_path / "real.xml").read_text() == merged(folder)
    assert (tmp_path / "real.xml").stat().st_mode & 0o7777 == 0o604


def test_merge_output_may_be_one_of_the_inputs(folder: Path) -> None:
    both = merged(folder)
    merged(folder / "games.xml", folder / "chat.xml", "-o", folder / "games.xml")
    assert (folder / "games.xml").read_text() == both


def test_merge_failure_leaves_the_old_output_and_no_other_file(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.xml"
    out.write_text("old")
    (folder / "bad.xml").write_text("bad")
    refused(folder, "-o", out)
    assert out.read_text() == "old"
    with pytest.raises(TypeError):  # a mistake while it writes
        replace(out, None)  # type: ignore[arg-type]
    assert out.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["d", "out.xml"]


def test_merge_refuses_unsuitable_outputs(folder: Path, tmp_path: Path) -> None:
    assert "so the next merge would include it" in refused(folder, "-o", folder / "all.xml")
    for odd in ("/dev/null", tmp_path):
        assert refused(folder, "-o", odd) == f"{odd}: not a regular file; omit -o to write to standard output"
    missing = tmp_path / "none" / "out.xml"
    assert refused(folder, "-o", missing) == f"{missing}: cannot be written: No such file or directory"


@pytest.mark.skipif(os.geteuid() != 0, reason="root alone can try it as another user")
def test_merge_output_without_permission_is_refused(tmp_path: Path) -> None:
    assert as_nobody(lambda: replace(Path("/root-only.xml"), b"")) == (
        "ConfigError: /root-only.xml: cannot be written: Permission denied"
    )


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_merge_full_standard_output_is_one_line_on_stderr() -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            command("merge", POLICY), cwd=ROOT, stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE, check=False
        )
    assert done.returncode == 2
    assert done.stderr == b"flashpol merge: standard output: cannot be written: No space left on device\n"


# -------------------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", ":1:1: the policy is empty"),
        ("<cross-domain-policy>\n<x/></cross-domain-policy>", ":2:1: <x> is not known in socket policies"),
        ("<access-policy/>", ":1:1: this is a Silverlight policy"),
    ],
)
def test_merge_invalid_fragment_is_refused_with_place(folder: Path, content: str, words: str) -> None:
    (folder / "bad.xml").write_text(content)
    assert refused(folder).startswith(f"{folder}/bad.xml{words}")


def test_merge_conflict_names_both_places(folder: Path) -> None:
    (folder / "a.xml").write_text(META.format("all"))
    (folder / "b.xml").write_text(META.format("master-only"))
    message = refused(folder)
    assert f"{folder}/a.xml:2:1" in message
    assert f"{folder}/b.xml:2:1" in message


def test_merge_without_any_file_is_refused(tmp_path: Path) -> None:
    assert refused(tmp_path) == f"{tmp_path}: no policy in this folder: put *.xml files there, or name a file"
    assert refused(tmp_path / "none.xml") == f"{tmp_path}/none.xml: cannot be read: No such file or directory"
    assert "FILE" in one_line(run("merge"), "flashpol merge")
