"""Policies that clients fetch by URL: `crossdomain_file` and `clientaccesspolicy_file` of listeners.

They are read and judged when a configuration is loaded, as socket policies are: an error refuses the configuration, and
warnings are logged. `flashpol.gateway.url_policies` makes HTTP replies of them.
"""

import logging
from collections.abc import Mapping
from pathlib import Path

from flashpol.config import Config, ConfigError, Listener
from flashpol.policy import Severity, lint
from flashpol.policy.decoding import split_nul
from flashpol.policy.ports import CROSSDOMAIN_PATH, SILVERLIGHT_HTTP_PATH
from flashpol.policy.rules import READERS
from flashpol.serving.file_watch import require_regular_file
from flashpol.serving.policies import read_file, with_place

# Path of a URL -> the file, without a NUL at its end.
UrlPolicies = Mapping[str, bytes]

# The clients that each file is for.
URL_CLIENTS = {CROSSDOMAIN_PATH: READERS["flash"], SILVERLIGHT_HTTP_PATH: READERS["silverlight"]}

# The kernel takes so much of a connection at once, so such a file needs no slow reply.
MAX_URL_POLICY_BYTES = 32_768

log = logging.getLogger("flashpol")


def files_of(config: Config) -> list[Path]:
    """All files that `load_all` reads."""
    return list(dict.fromkeys(file for listener in config.listeners for file in listener.policy_files.values()))


def load_all(config: Config) -> list[UrlPolicies]:
    """The files of each listener, in their order. Raises ConfigError, as all functions here do."""
    logged: set[str] = set()
    return [
        {url: _load(listener, url, file, logged) for url, file in listener.policy_files.items()}
        for listener in config.listeners
    ]


def _load(listener: Listener, url: str, file: Path, logged: set[str]) -> bytes:
    """Read and judge one file. logged: the warnings so far; listeners that serve the same file share some."""
    try:
        require_regular_file(file)
        data = read_file(file)
        if len(data) > MAX_URL_POLICY_BYTES:
            raise ConfigError(
                f"{file}: has {len(data):,} bytes, and a policy by URL at most {MAX_URL_POLICY_BYTES:,}: remove what "
                "no client needs, such as comments"
            )
        _judge(data, listener, url, file, logged)
    except ConfigError as error:
        raise ConfigError(str(error), listener.location) from None
    return split_nul(data)[0]


def _judge(data: bytes, listener: Listener, url: str, file: Path, logged: set[str]) -> None:
    findings = lint(data, served_from=listener.public_port, clients=URL_CLIENTS[url], by_url=True)
    errors = [finding for finding in findings if finding.severity is Severity.ERROR]
    if errors:
        # The first mistake in the bytes or the XML explains what follows from it.
        first = min(errors, key=lambda finding: not finding.code.startswith("FP1"))
        more = f" (and {len(errors) - 1} more: flashpol check --by-url shows all)" if len(errors) > 1 else ""
        raise ConfigError(f"{with_place(str(file), first)}{more}")
    for finding in findings:
        text = with_place(str(file), finding)
        if finding.severity is Severity.WARNING and text not in logged:
            logged.add(text)
            log.warning("%s", text, extra={"event": "policy-warning"})
