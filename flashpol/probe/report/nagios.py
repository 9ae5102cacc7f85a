"""One line and an exit status, for Nagios and its descendants (Monitoring Plugins' guidelines)."""

from collections.abc import Sequence

from flashpol.probe.findings.reaching import SLOW
from flashpol.probe.findings.registry import Severity
from flashpol.probe.findings.rtmp import SLOW as SLOW_FALLBACK
from flashpol.probe.model import Role
from flashpol.probe.report import Result, counts, title
from flashpol.probe.report.rtmp import summary as summary_of_rtmp
from flashpol.probe.report.text import clean
from flashpol.probe.rtmp import judgement as rtmp
from flashpol.probe.tls.judgement import EXPIRES_SOON, own_certificate
from flashpol.probe.websocket.upgrade import upgrade_of

OK, WARNING, CRITICAL, UNKNOWN = range(4)
_NAMES = ("OK", "WARNING", "CRITICAL", "UNKNOWN")
_FLASH_WAITS = 3  # seconds


def status(results: Sequence[Result]) -> int:
    """Return the worst status. A host that could not be tried counts less than the findings about other hosts."""
    numbers = counts(results)
    if numbers[Severity.ERROR] or numbers[Severity.WARNING]:
        return CRITICAL if numbers[Severity.ERROR] else WARNING
    return OK if all(map(_is_known, results)) else UNKNOWN


def _is_known(result: Result) -> bool:
    return bool(result.tried)


def line(results: Sequence[Result]) -> str:
    text = "; ".join(_of_host(result) for result in results)
    data = " ".join(part for result in results for part in _perfdata(result, len(results) > 1))
    return f"FLASHPOL {_NAMES[status(results)]} - {text.replace('|', '/')} | {data}"


def unknown(why: str) -> str:
    return f"FLASHPOL {_NAMES[UNKNOWN]} - {clean(why).replace('|', '/')}"


def _of_host(result: Result) -> str:
    worst = next((f for f in result.findings if f.severity is not Severity.NOTE), None)
    said = clean(result.host)
    if worst is not None:
        where = f" at {worst.where}" if worst.where else ""
        return f"{said}: {worst.code} {clean(worst.message)}{where} ({title([result])})"
    if not _is_known(result):
        return f"{said}: this machine cannot try it"
    if result.observation.question.websocket is not None:
        return f"{said}: WebSocket works"
    if result.observation.question.rtmp is not None:
        return f"{said}: {summary_of_rtmp(result.observation)}"
    ports = ", ".join(map(str, sorted({target.port for target in result.serving})))
    if not result.observation.question.tls:
        return f"{said}: policy on port {ports}"
    return f"{said}: policy inside TLS on port {ports}" if ports else f"{said}: TLS works"


def _perfdata(result: Result, several: bool) -> list[str]:
    """Return items such as `'HOST time'=0.012s;1;3;0`; the time is that of the slowest policy."""
    prefix = f"{clean(result.host)} " if several else ""
    prefix = prefix.replace("'", "").replace("=", "")

    def label(name: str) -> str:
        return f"'{prefix}{name}'" if prefix else name

    data = []
    if times := [target.asked.received[-1].at for target in result.serving if target.asked.received]:
        data.append(f"{label('time')}={max(times):.4f}s;{SLOW:g};{_FLASH_WAITS};0")
        data.append(f"{label('size')}={max(len(target.reply.data) for target in result.serving)}B;4000;5000;0")
    upgrades = [upgrade_of(target.asked) for target in result.observation.all_targets(Role.WEBSOCKET)]
    if opened := [upgrade.seconds for upgrade in upgrades if upgrade.opened and upgrade.seconds is not None]:
        data.append(f"{label('time')}={max(opened):.4f}s;{SLOW:g};;0")
    reached = [rtmp.fallback(result.observation, address) for address in result.observation.targets]
    if worked := [one.seconds for one in reached if one.works is not None]:
        data.append(f"{label('time')}={max(worked):.4f}s;{SLOW_FALLBACK:g};;0")
    expiries = [own.not_after for target in result.observation.all_targets() if (own := own_certificate(target))]
    if expiries:
        left = min(expiries) - result.observation.time
        data.append(f"{label('certificate')}={left:.0f}s;{EXPIRES_SOON}:;0:")
    numbers = counts([result])
    data.append(f"{label('errors')}={numbers[Severity.ERROR]};;0;0")
    data.append(f"{label('warnings')}={numbers[Severity.WARNING]};0;;0")
    return data
