"""What is looked at before anything is bound."""

import dataclasses
from pathlib import Path

import pytest

from flashpol.config import Config, ConfigError, Server
from flashpol.server.preflight import look


def config(**settings: object) -> Config:
    return Config(dataclasses.replace(Server(), **settings), (), ())


def test_what_is_there(tmp_path: Path) -> None:
    look(config())
    look(config(user="root", group="root", chroot=tmp_path))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"user": "no-such-user"}, "user 'no-such-user': there is no such user"),
        ({"user": ""}, "user '': there is no such user"),
        ({"user": "a\0b"}, "user 'a\\x00b': there is no such user"),
        ({"group": "no-such-group"}, "group 'no-such-group': there is no such group"),
        ({"chroot": Path("/no/such/folder")}, "chroot /no/such/folder: there is no such folder"),
        ({"chroot": Path("/dev/null")}, "chroot /dev/null: there is no such folder"),
    ],
)
def test_what_is_not_there(settings: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        look(config(**settings))
    assert str(caught.value) == message
