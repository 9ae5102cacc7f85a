"""FP5xx: `site-control`, and rules that depend on the port that serves the policy (`--served-from`).

Without a port, `site-control` is taken as meant for the master policy on 843, the only place where it counts.
Unity parses `site-control` and never uses it, so rules about its value do not concern Unity.
"""

from collections.abc import Iterator

from flashpol.policy.lint_document import GrantLine, LintDocument
from flashpol.policy.model import MetaPolicy, shown
from flashpol.policy.ports import MASTER_PORT, SILVERLIGHT_PORT, UNFETCHED, UNPRIVILEGED
from flashpol.policy.rules.grammar import lacks
from flashpol.policy.rules.registry import (
    ADOBE,
    ERROR,
    GOOD,
    NAMES,
    NOTE,
    WARNING,
    Hit,
    control,
    flash_file,
    grant,
    rule,
)

_VALUE = "permitted-cross-domain-policies"
_VALUES = tuple(meta.value for meta in MetaPolicy)
_OTHER_PROTOCOLS = {
    "by-content-type": "is for HTTP policies only",
    "by-ftp-filename": "is for FTP policies only",
    "none-this-response": "is for HTTP headers only",
}


def meant_for_master(document: LintDocument) -> bool:
    return document.by_url or document.served_from in (None, MASTER_PORT)


@rule(
    "FP501", ERROR, "missing-meta-policy",
    wrong="site-control has no value",
    instead='write permitted-cross-domain-policies="master-only", or remove site-control',
    clients=ADOBE, bad=flash_file("<site-control/>", grant()), good=flash_file(control("all"), grant()),
)  # fmt: skip
def missing_meta_policy(document: LintDocument) -> Iterator[Hit]:
    for element in document.controls:
        if lacks(element, _VALUE):
            yield Hit(element.location)


@rule(
    "FP502", ERROR, "other-protocol",
    wrong="the meta-policy {value} {why}", instead='write "none", "master-only" or "all"',
    clients=ADOBE, bad=flash_file(control("by-content-type"), grant()), good=flash_file(control("all"), grant()),
)  # fmt: skip
def other_protocol(document: LintDocument) -> Iterator[Hit]:
    for element in document.controls:
        value = element.attributes.get(_VALUE, "")
        if value in _OTHER_PROTOCOLS:
            yield Hit(element.value_location(_VALUE), value=shown(value), why=_OTHER_PROTOCOLS[value])


@rule(
    "FP503", ERROR, "unknown-meta-policy",
    wrong="{value} is not a meta-policy", instead='write "none", "master-only" or "all"',
    clients=ADOBE, bad=flash_file(control("Master-Only"), grant()), good=flash_file(control("master-only"), grant()),
)  # fmt: skip
def unknown_meta_policy(document: LintDocument) -> Iterator[Hit]:
    for element in document.controls:
        value = element.attributes.get(_VALUE)
        if value is not None and value not in _VALUES and value not in _OTHER_PROTOCOLS:
            yield Hit(element.value_location(_VALUE), value=shown(value))


@rule(
    "FP504", ERROR, "second-site-control",
    wrong="a second site-control, after the one at line {line}{conflict}", instead="keep one",
    clients=ADOBE, bad=flash_file(control("all"), control("none"), grant()), good=flash_file(control("all"), grant()),
)  # fmt: skip
def second_site_control(document: LintDocument) -> Iterator[Hit]:
    values = {element.attributes.get(_VALUE, "") for element in document.controls}
    conflict = "" if len(values) == 1 else '; they differ, and "none" wins' if "none" in values else "; they differ"
    for element in document.controls[1:]:
        yield Hit(element.location, line=document.controls[0].location.line, conflict=conflict)


@rule(
    "FP505", ERROR, "grants-under-none",
    wrong='"none" forbids every policy of this host, including this one: its grants allow nothing',
    instead='write "master-only" if this policy should count, or remove the grants',
    clients=NAMES, bad=flash_file(control("none"), grant()), good=flash_file(control("master-only"), grant()),
)  # fmt: skip
def grants_under_none(document: LintDocument) -> Iterator[Hit]:
    if document.meta == "none" and document.grants and meant_for_master(document):
        yield Hit(document.controls[0].value_location(_VALUE))


@rule(
    "FP512", NOTE, "all-forbidden",
    wrong='"none" forbids every policy of this host: no content may connect to it',
    instead='write "master-only" and grants, unless that is what you want',
    clients=NAMES, bad=flash_file(control("none")), good=flash_file(control("all"), grant()),
)  # fmt: skip
def all_forbidden(document: LintDocument) -> Iterator[Hit]:
    if document.meta == "none" and not document.grants and meant_for_master(document):
        yield Hit(document.controls[0].value_location(_VALUE))


@rule(
    "FP506", WARNING, "site-control-ignored",
    wrong=f"site-control counts only on port {MASTER_PORT}; on {{port}} it is ignored",
    instead=f"remove site-control here, or serve the policy on {MASTER_PORT} too",
    clients=("flash",), served_from=5222,
    bad=flash_file(control("master-only"), grant()), good=GOOD,
)  # fmt: skip
def site_control_ignored(document: LintDocument) -> Iterator[Hit]:
    if not meant_for_master(document):
        for element in document.controls:
            yield Hit(element.location, port=document.served_from)


@rule(
    "FP507", NOTE, "others-hidden",
    wrong='"master-only" on port 843: clients ignore policies that other ports of this host serve',
    instead='write "all" if an application replies to policy requests on its own port',
    clients=NAMES, served_from=MASTER_PORT,
    bad=flash_file(control("master-only"), grant()), good=flash_file(control("all"), grant()),
)  # fmt: skip
def others_hidden(document: LintDocument) -> Iterator[Hit]:
    if document.served_from == MASTER_PORT and document.meta == "master-only":
        yield Hit(document.controls[0].value_location(_VALUE))


def _low_ports(document: LintDocument) -> Iterator[tuple[GrantLine, str, bool]]:
    """Yield grants of ports that a policy from this port cannot grant: the ports, and whether it grants no others.

    `*` is not reported: there it means every port that can be granted.
    """
    # Unity compares with "more than 1024", so a policy from 1024 itself may grant all ports there.
    lowest = UNPRIVILEGED if "flash" in document.clients else UNPRIVILEGED + 1
    if document.served_from is None or document.served_from < lowest:
        return
    for line in document.grants:
        if line.ports is not None and not line.ports.any and line.ports.ranges[0][0] < UNPRIVILEGED:
            low = [(first, min(last, UNPRIVILEGED - 1)) for first, last in line.ports.ranges if first < UNPRIVILEGED]
            ports = ",".join(f"{first}-{last}" if last > first else str(first) for first, last in low)
            yield line, shown(ports)[1:-1], line.ports.ranges[-1][1] < UNPRIVILEGED


@rule(
    "FP508", ERROR, "privileged-ports",
    wrong=f"served from port {{port}} this grants nothing: only a policy from a port below {UNPRIVILEGED} grants such"
    " ports",
    instead=f"serve this policy on {MASTER_PORT} or another port below {UNPRIVILEGED}",
    clients=("flash", "unity"), served_from=5222, bad=flash_file(grant("80,443")), good=flash_file(grant("5222")),
)  # fmt: skip
def privileged_ports(document: LintDocument) -> Iterator[Hit]:
    for line, _, is_all in _low_ports(document):
        if is_all:
            yield Hit(line.ports_place, port=document.served_from)


@rule(
    "FP509", WARNING, "some-privileged-ports",
    wrong=f"served from port {{port}} this does not grant {{ports}}: only a policy from a port below {UNPRIVILEGED}"
    " grants such ports",
    instead=f"remove them, or serve this policy on {MASTER_PORT}",
    clients=("flash", "unity"), served_from=5222, bad=flash_file(grant("80,5222")), good=flash_file(grant("5222")),
)  # fmt: skip
def some_privileged_ports(document: LintDocument) -> Iterator[Hit]:
    for line, ports, is_all in _low_ports(document):
        if not is_all:
            yield Hit(line.ports_place, port=document.served_from, ports=ports)


@rule(
    "FP510", ERROR, "never-asked",
    wrong="Flash fetches no policy from port {port}",
    instead=f"serve the policy on {MASTER_PORT} or on the application's port",
    clients=("flash",), served_from=25, good_port=MASTER_PORT, bad=flash_file(grant()), good=flash_file(grant()),
)  # fmt: skip
def never_asked(document: LintDocument) -> Iterator[Hit]:
    if document.root is not None and document.served_from in UNFETCHED:
        yield Hit(document.root.location, port=document.served_from)


@rule(
    "FP511", WARNING, "adobe-on-943",
    wrong=f"this is Adobe's dialect; only Silverlight asks on port {SILVERLIGHT_PORT}, and it needs an <access-policy>",
    instead=f"serve this policy on {MASTER_PORT}",
    clients=("flash",), served_from=SILVERLIGHT_PORT, good_port=MASTER_PORT, bad=GOOD, good=GOOD,
)  # fmt: skip
def adobe_on_943(document: LintDocument) -> Iterator[Hit]:
    if document.root is not None and document.served_from == SILVERLIGHT_PORT:
        yield Hit(document.root.location)
