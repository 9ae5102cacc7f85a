"""What to run: a configuration from which everything has been loaded that it names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flashpol.config import Config
from flashpol.process.privileges import Privileges
from flashpol.serving.file_watch import digest
from flashpol.serving.networks import Access
from flashpol.serving.policies import compile_all


@dataclass(frozen=True)
class Plan:
    """`replies` holds the bytes that `config.listeners` serve, `access` to whom; `privileges` are for the children."""

    config: Config
    replies: Sequence[bytes] = field(repr=False)
    access: Sequence[Access] = field(repr=False)
    privileges: Privileges


class Loader:
    """Makes plans, again and again.

    configure: reads the configuration; raises ConfigError. file: the one it reads, if it does.
    """

    def __init__(self, configure: Callable[[], Config], file: Path | None = None) -> None:
        self._configure = configure
        self._file = [file] if file else []
        self.paths: list[Path] = list(self._file)  # what the last attempt read, or would have

    def load(self, mark: Callable[[], None] = lambda: None) -> Plan:
        """Read the configuration, load its policies, look its user up. Raises ConfigError.

        mark: is called before anything is read that `paths` names, so that whoever watches them misses no change.
        """
        while True:
            mark()
            before = digest(self._file)
            config = self._configure()
            sources = [path for source in config.policies for path in (source.file, source.folder) if path]
            self.paths = [*self._file, *sources]
            mark()
            if digest(self._file) == before:  # what is marked now is what was read
                break
        privileges = Privileges.of(config.server)
        privileges.require_rights()
        return Plan(config, compile_all(config), list(map(Access.of, config.listeners)), privileges)
