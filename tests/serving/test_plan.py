"""Loading: what is watched is what was read, or older."""

from pathlib import Path

from flashpol.config import Address, Config, ConfigError, Listener, PolicySource, Server
from flashpol.serving.file_watch import Watch
from flashpol.serving.plan import Loader

POLICY = '<cross-domain-policy><allow-access-from domain="{}" to-ports="1935"/></cross-domain-policy>'


class Files:
    """A configuration file, whose text is the name of the one policy file; `read` is called when it has been read."""

    def __init__(self, folder: Path) -> None:
        self.config, self.folder = folder / "flashpol.toml", folder
        self.write("one", "one.example")
        self.config.write_text("one")
        self.reads = 0
        self.loader = Loader(self._configure, self.config)
        self.watch = Watch(lambda: self.loader.paths)

    def write(self, name: str, domain: str) -> None:
        (self.folder / name).write_text(POLICY.format(domain))

    def _configure(self) -> Config:
        name = self.config.read_text()
        self.reads += 1
        self.read()
        if not name:
            raise ConfigError("it is empty")
        source = PolicySource("main", file=self.folder / name)
        return Config(Server(), (source,), (Listener(None, Address("127.0.0.1", 0), "main"),))

    def read(self) -> None:
        pass

    @property
    def changed(self) -> bool:
        """As the second of two looks says, between which nothing happened."""
        return self.watch.changed() or self.watch.changed()


def test_what_is_loaded_is_watched(tmp_path: Path) -> None:
    files = Files(tmp_path)
    assert b"one.example" in files.loader.load(files.watch.mark).replies[0]
    assert not files.changed
    files.write("one", "changed.example")
    assert files.changed


def test_a_policy_that_changes_while_it_is_loaded_is_seen(tmp_path: Path) -> None:
    files = Files(tmp_path)
    marks = 0

    def mark() -> None:
        nonlocal marks
        files.watch.mark()
        marks += 1
        if marks == 2:
            files.write("one", "changed.example")

    files.loader.load(mark)
    assert files.changed


def test_a_configuration_that_changes_while_it_is_read_is_read_again(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.write("two", "two.example")
    files.read = lambda: files.config.write_text("two")  # type: ignore[method-assign, assignment, return-value]
    assert b"two.example" in files.loader.load(files.watch.mark).replies[0]
    assert not files.changed
    assert files.loader.paths == [files.config, tmp_path / "two"]


def test_one_that_does_not_change_is_read_once_as_a_pipe_must_be(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.loader.load(files.watch.mark)
    assert files.reads == 1


def test_one_that_cannot_be_loaded_is_not_news_until_it_changes(tmp_path: Path) -> None:
    files = Files(tmp_path)
    files.loader.load(files.watch.mark)
    files.config.write_text("")
    try:
        files.loader.load(files.watch.mark)
    except ConfigError:
        assert not files.changed
    files.config.write_text("one")
    assert files.changed
