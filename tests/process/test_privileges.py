"""Rights that a child gives up, tried in children of the test."""

import dataclasses
import grp
import os
import pwd
import socket
from pathlib import Path

import pytest

from flashpol.config import ConfigError, Server
from flashpol.process.privileges import Privileges
from testkit.processes import as_nobody, forked, status

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def privileges(**settings: object) -> Privileges:
    return Privileges.of(dataclasses.replace(Server(), **settings))  # type: ignore[arg-type]


def test_privileges_of_known_names_hold_their_entries(tmp_path: Path) -> None:
    me = pwd.getpwuid(os.geteuid())
    assert privileges() == Privileges()
    assert privileges(user=me.pw_name).user == me
    assert privileges(user=me.pw_name, group="root", chroot=tmp_path) == Privileges(me, grp.getgrnam("root"), tmp_path)


@pytest.mark.parametrize("name", ["nobody-of-that-name", "", "a\0b", "a\nb", "x" * 5000])
@pytest.mark.parametrize("what", ["user", "group"])
def test_privileges_of_an_unknown_name_raise_one_line(what: str, name: str) -> None:
    with pytest.raises(ConfigError, match=f"no such {what}") as caught:
        privileges(**{what: name})
    assert str(caught.value).startswith(f"{what} {name!r}: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"chroot": Path("/no/such/folder")}, "chroot '/no/such/folder': no such folder"),
        ({"user": "root", "chroot": Path("/dev/null")}, "chroot '/dev/null': no such folder"),
        ({"chroot": Path("/")}, "chroot '/': root can leave a chroot; set user too"),
    ],
)
def test_privileges_of_a_bad_chroot_raise_one_line(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        privileges(**settings)
    assert str(caught.value) == message


@as_root
@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({"user": "root"}, "user 'root'"),
        ({"group": "root"}, "group 'root'"),
        ({"user": "nobody", "chroot": Path("/")}, "chroot '/'"),
        ({"user": "nobody"}, None),
        ({"group": grp.getgrgid(pwd.getpwnam("nobody").pw_gid).gr_name}, None),
        ({}, None),
    ],
)
def test_require_rights_without_root_refuses_another_user_group_or_chroot(
    settings: dict[str, object], wanted: str | None
) -> None:
    privileges(**settings).require_rights()
    said = as_nobody(lambda: privileges(**settings).require_rights())
    refusal = f"ConfigError: {wanted}: only root can change that; start as root, or remove the setting"
    assert said == (refusal if wanted else "None")


CAPABILITIES = ("CapEff", "CapPrm", "CapInh", "CapAmb")


@as_root
@pytest.mark.parametrize("group", [None, "daemon"])
def test_drop_as_root_cannot_be_undone(group: str | None, tmp_path: Path) -> None:
    user = pwd.getpwnam("nobody")
    gid = grp.getgrnam(group).gr_gid if group else user.pw_gid
    tmp_path.chmod(0o755)

    def main() -> None:
        privileges(user="nobody", group=group, chroot=tmp_path).drop()
        assert (os.listdir("/"), os.getcwd()) == ([], "/")
        assert os.getgroups() == [gid]
        for back in (os.setuid, os.seteuid, os.setgid, os.setegid):
            with pytest.raises(PermissionError):
                back(0)
        with pytest.raises(PermissionError):
            os.setgroups([0])

    with forked(main) as child:
        now = status(child.pid)
        assert now["Uid"].split() == [str(user.pw_uid)] * 4
        assert now["Gid"].split() == [str(gid)] * 4
        assert [int(now[name], 16) for name in CAPABILITIES] == [0] * 4
        assert now["NoNewPrivs"] == "1"


NET_RAW = 1 << 13  # capabilities(7)


@as_root
def test_drop_keeps_the_capability_for_addresses_of_clients() -> None:
    """It takes no other, gives it to no program, and lets a socket have such an address."""

    def main() -> None:
        Privileges.of(Server(user="nobody"), transparent=True).drop()
        with socket.socket() as sock:
            sock.setsockopt(socket.SOL_IP, 19, 1)  # IP_TRANSPARENT
            sock.bind(("192.0.2.7", 0))
        with pytest.raises(PermissionError):
            os.setuid(0)

    with forked(main) as child:
        now = status(child.pid)
        assert now["Uid"].split() == [str(pwd.getpwnam("nobody").pw_uid)] * 4
        assert [int(now[name], 16) for name in CAPABILITIES] == [NET_RAW, NET_RAW, 0, 0]
        assert now["NoNewPrivs"] == "1"


@as_root
def test_drop_without_that_capability_keeps_none() -> None:
    def drop() -> str:
        Privileges(transparent=True).drop()
        return status(os.getpid())["CapEff"]

    assert int(as_nobody(drop), 16) == 0


@as_root
def test_drop_to_the_present_user_changes_nothing() -> None:
    user = pwd.getpwnam("nobody")
    assert as_nobody(lambda: privileges(user="nobody").drop() or os.getresuid()) == str((user.pw_uid,) * 3)
