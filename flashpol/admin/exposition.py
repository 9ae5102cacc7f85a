"""The text of /metrics, in the format that the client asks for.

prometheus-client writes the text of a format once. What changes from scrape to scrape is the values, so each scrape
only writes these into a template. It reads them from shared memory at that moment: no value is kept.
"""

from prometheus_client.exposition import choose_encoder
from prometheus_client.utils import floatToGoString

from flashpol.admin.metrics import FlashpolCollector, Samples

# Templates that are kept, by Accept header. Clients may send any; a server has one or two that scrape it.
MAX_TEMPLATES = 8
# Whole numbers from the first on have an exponent; from the second on a float may not be exact.
EXPONENT_FROM, INEXACT_FROM = 10**6, 2**53


class Exposition:
    def __init__(self, collector: FlashpolCollector) -> None:
        self._collector = collector
        self._samples: Samples | None = None  # those of the templates
        self._templates: dict[str, tuple[str, str]] = {}  # Accept header -> content type, template

    def write(self, accept: str) -> tuple[str, bytes]:
        """The content type and the text for this Accept header."""
        samples = self._collector.samples
        if samples is not self._samples:
            self._samples, self._templates = samples, {}
        if accept not in self._templates:
            if len(self._templates) == MAX_TEMPLATES:
                self._templates.clear()
            self._templates[accept] = _template(samples, accept)
        kind, template = self._templates[accept]
        return kind, (template % tuple(map(_number, samples.values()))).encode()


def _template(samples: Samples, accept: str) -> tuple[str, str]:
    """What prometheus-client writes, with %s for each value."""
    encoder, kind = choose_encoder(accept)
    lines = encoder(samples).decode().replace("%", "%%").split("\n")
    return kind, "\n".join(line[: line.rindex(" ")] + " %s" if line and line[0] != "#" else line for line in lines)


def _number(value: float) -> str:
    """As `floatToGoString` writes it, which takes several times as long: nearly all values are whole numbers."""
    if type(value) is not int or not 0 <= value < INEXACT_FROM:
        return str(floatToGoString(value))  # type: ignore[no-untyped-call]
    if value < EXPONENT_FROM:
        return f"{value}.0"
    digits = str(value)
    return f"{digits[0]}.{digits[1:]}".rstrip("0.") + f"e+{len(digits) - 1:02}"
