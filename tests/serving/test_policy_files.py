"""Policy files by URL: read and judged when a configuration is loaded, and watched for changes."""

import logging
import os
import pickle
from pathlib import Path

import pytest

from flashpol.config import Address, Config, ConfigError, Listener, PolicySource, Server, load
from flashpol.serving import policy_files
from flashpol.serving.file_watch import FileWatch
from flashpol.serving.plan import Loader

CROSSDOMAIN = '<cross-domain-policy><allow-access-from domain="www.example.com"/></cross-domain-policy>'
SOCKET = '<cross-domain-policy><allow-access-from domain="www.example.com" to-ports="1935"/></cross-domain-policy>'
SILVERLIGHT = (
    '<access-policy><cross-domain-access><policy><allow-from><domain uri="*"/></allow-from><grant-to>'
    '<resource path="/"/></grant-to></policy></cross-domain-access></access-policy>'
)
SOCKETS_TOO = SILVERLIGHT.replace("<resource", '<socket-resource port="4502" protocol="tcp"/><resource')


def config_of(folder: Path, *texts: tuple[str, str], port: int = 8080) -> Config:
    """A listener for each pair of files; an empty text: none."""
    listeners = []
    for number, pair in enumerate(texts):
        files = [folder / f"{number}-{kind}.xml" if text else None for kind, text in zip("cs", pair, strict=True)]
        for file, text in zip(files, pair, strict=True):
            if file:
                file.write_text(text)
        address = Address("127.0.0.1", port + number)
        listeners.append(Listener(None, address, "main", crossdomain_file=files[0], clientaccesspolicy_file=files[1]))
    return Config(Server(), (PolicySource("main", grants=("*:1935",)),), tuple(listeners))


def test_load_all_maps_paths_of_each_listener_to_its_files(tmp_path: Path) -> None:
    config = config_of(tmp_path, (CROSSDOMAIN, SILVERLIGHT), ("", ""), (CROSSDOMAIN + "\0", ""))
    assert policy_files.load_all(config) == [
        {"/crossdomain.xml": CROSSDOMAIN.encode(), "/clientaccesspolicy.xml": SILVERLIGHT.encode()},
        {},
        {"/crossdomain.xml": CROSSDOMAIN.encode()},
    ]
    assert [file.name for file in policy_files.files_of(config)] == ["0-c.xml", "0-s.xml", "2-c.xml"]


@pytest.mark.parametrize(
    ("crossdomain", "silverlight", "words"),
    [
        ("<cross-domain-policy><a/></cross-domain-policy>", "", "0-c.xml:1:22: error FP902"),
        ("<cross-domain-policy><a/>\n<b", "", "0-c.xml:2:"),
        (SILVERLIGHT, "", "0-c.xml:1:1: error FP117: this is a Silverlight policy"),
        ("", CROSSDOMAIN, "0-s.xml:1:1: error FP117: this is an Adobe policy"),
        ("", SILVERLIGHT.replace('<resource path="/"/>', ""), "error FP802"),
        ("<cross-domain-policy><a/><b/></cross-domain-policy>", "", "(and 1 more: flashpol check --by-url shows all)"),
    ],
)
def test_load_all_refuses_a_file_with_an_error(tmp_path: Path, crossdomain: str, silverlight: str, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        policy_files.load_all(config_of(tmp_path, (crossdomain, silverlight)))
    assert words in str(caught.value)


def test_load_all_refuses_what_is_no_regular_file(tmp_path: Path) -> None:
    config = config_of(tmp_path, (CROSSDOMAIN, ""))
    file = tmp_path / "0-c.xml"
    file.unlink()
    with pytest.raises(ConfigError, match=r"0-c\.xml"):
        policy_files.load_all(config)
    os.mkfifo(file)
    with pytest.raises(ConfigError, match=r"0-c\.xml"):
        policy_files.load_all(config)


def test_load_all_logs_each_warning_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "flashpol"):
        config = config_of(tmp_path, (SOCKET, SOCKETS_TOO))
        [listener] = config.listeners
        policy_files.load_all(Config(Server(), config.policies, (listener, listener)))
    assert [record.event for record in caplog.records] == ["policy-warning"] * 2  # type: ignore[attr-defined]
    assert "FP901" in caplog.messages[0]
    assert "FP815" in caplog.messages[1]
    caplog.clear()
    policy_files.load_all(config_of(tmp_path, ("", SOCKETS_TOO), port=80))
    assert caplog.messages == [], "Silverlight asks on port 80"


def test_plan_has_the_files_and_the_watch_sees_their_changes(tmp_path: Path) -> None:
    file = tmp_path / "flashpol.toml"
    file.write_text(
        '[policies.main]\ngrants = [{domain = "*", ports = "1935"}]\n[[listeners]]\naddress = "127.0.0.1:0"\n'
        'policy = "main"\ncrossdomain_file = "crossdomain.xml"\n'
    )
    (tmp_path / "crossdomain.xml").write_text(CROSSDOMAIN)
    loader, watch = Loader(lambda: load(file), file), FileWatch()
    plan = pickle.loads(pickle.dumps(loader.load(watch.adopt)))
    assert plan.url_policies == [{"/crossdomain.xml": CROSSDOMAIN.encode()}]
    assert not any([watch.changed(), watch.changed()])
    (tmp_path / "crossdomain.xml").write_text(CROSSDOMAIN.replace("www", "new"))
    assert any([watch.changed(), watch.changed()])
    assert b"new.example.com" in loader.load(watch.adopt).url_policies[0]["/crossdomain.xml"]
