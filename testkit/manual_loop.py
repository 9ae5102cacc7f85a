"""An event loop that a test turns by hand."""

from collections.abc import Callable

from testkit.polling import DEADLINE, eventually


class ManualLoop:
    def turn(self, timeout: float = 0) -> bool:
        """One wake-up, if there is work within `timeout` seconds."""
        raise NotImplementedError

    def drain(self) -> None:
        """Turn until there is no work left."""
        while self.turn():
            pass

    def until(self, condition: Callable[[], object], what: object = "", seconds: float = DEADLINE) -> None:
        """Turn until `condition` is true: see `eventually`."""
        eventually(condition, what, seconds, wait=self.turn)
