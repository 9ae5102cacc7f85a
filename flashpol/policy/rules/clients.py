"""FP7xx: policies that Adobe's rules allow and that Lightspark or Unity misread. Traps: errors once a client is named.

Sources: `src/backends/security.cpp` of Lightspark, and measurements; mono's `SocketPolicyClient.cs` for Unity.
"""

from collections.abc import Iterator

from flashpol.policy.decoding import START
from flashpol.policy.lint_document import LintDocument
from flashpol.policy.model import shown
from flashpol.policy.ports import MASTER_PORT
from flashpol.policy.rules.registry import GOOD, NOTE, WARNING, Hit, control, flash_file, grant, rule
from flashpol.policy.rules.serving import meant_for_master
from flashpol.policy.sizes import LIGHTSPARK_READ_BYTES, SEGMENT_BYTES, UNITY_BYTES

# A policy above this size is close to Unity's limit.
_LARGE_BYTES = 4000


def _padded(size: int) -> str:
    """Return an example of exactly `size` bytes."""
    comment = len("\n<!--  -->")
    return f"{GOOD}\n<!-- {'.' * (size - len(GOOD) - comment)} -->"


@rule(
    "FP701", WARNING, "lightspark-range", trap=True,
    wrong="Lightspark grants only the first port of the range {range}", instead='write the ports singly, or "*"',
    clients=("lightspark",), bad=flash_file(grant("8000-8002")), good=flash_file(grant("8000,8001,8002")),
)  # fmt: skip
def lightspark_range(document: LintDocument) -> Iterator[Hit]:
    for line in document.grants:
        if line.ports is not None and "-" in line.ports_text:
            wide = [item for item in _ranges(line.ports_text) if item[0] != item[1]]
            if wide:
                yield Hit(line.ports_place, range=f"{wide[0][0]}-{wide[0][1]}")


def _ranges(text: str) -> list[tuple[str, str]]:
    parts = (item.strip(" ").partition("-") for item in text.split(","))
    return [(low, high) for low, dash, high in parts if dash]


@rule(
    "FP702", NOTE, "unity-domain", trap=True,
    wrong='Unity ignores this grant: it counts only domain="*", not {domain}',
    instead="ignore this unless you have Unity players",
    clients=("unity",), bad=flash_file(grant(domain="*.example.com")), good=GOOD,
)  # fmt: skip
def unity_domain(document: LintDocument) -> Iterator[Hit]:
    # Reported once a file, and as a note: most policies name domains on purpose.
    named = [line for line in document.grants if line.domain is not None and line.domain.host]
    if named and not any(line.domain is not None and not line.domain.host for line in document.grants):
        yield Hit(named[0].domain_place, domain=shown(named[0].domain_text))


@rule(
    "FP703", WARNING, "unity-range", trap=True,
    wrong="Unity does not grant the last port of the range {range}", instead="write {longer}",
    clients=("unity",), bad=flash_file(grant("8000-8100")), good=flash_file(grant("8000,8001,8002")),
)  # fmt: skip
def unity_range(document: LintDocument) -> Iterator[Hit]:
    for line in document.grants:
        if line.ports is not None and line.domain is not None and not line.domain.host and "-" in line.ports_text:
            # If the list also has the last port singly, Unity grants it.
            single = {item.strip(" ") for item in line.ports_text.split(",")}
            for low, high in _ranges(line.ports_text):
                if high not in single:
                    longer = f'"{low},..." without a range' if low == high else f'"{low}-{high},{high}"'
                    yield Hit(line.ports_place, range=f"{low}-{high}", longer=longer)
                    break


@rule(
    "FP704", WARNING, "large",
    wrong="the policy has {size} bytes, close to the 5,000 that Unity reads",
    instead="grant to *.suffix or * instead of many hosts, and remove comments",
    clients=("unity",), bad=_padded(4001), good=_padded(3999),
)  # fmt: skip
def large(document: LintDocument) -> Iterator[Hit]:
    if _LARGE_BYTES < document.reply_bytes - 1 <= UNITY_BYTES:
        yield Hit(START, size=f"{document.reply_bytes - 1:,}")


@rule(
    "FP705", WARNING, "more-than-one-segment",
    wrong="the reply has {size} bytes, its NUL included, more than one TCP segment of 1,448: Lightspark denies if it"
    " arrives in parts{hang}",
    instead="keep the reply within 1,448 bytes: grant to *.suffix or * instead of many hosts, and remove comments",
    clients=("lightspark",), bad=_padded(1448), good=_padded(1447),
)  # fmt: skip
def more_than_one_segment(document: LintDocument) -> Iterator[Hit]:
    if document.reply_bytes > SEGMENT_BYTES:
        hang = f", and hangs after a read of {LIGHTSPARK_READ_BYTES:,} if the server, unlike flashpol, does not close"
        yield Hit(
            START,
            size=f"{document.reply_bytes:,}",
            hang=hang if document.reply_bytes % LIGHTSPARK_READ_BYTES == 0 else "",
        )


@rule(
    "FP706", WARNING, "too-large-for-unity", trap=True,
    wrong="the policy has {size} bytes, and Unity reads 5,000 of it",
    instead="stay within 5,000: grant to *.suffix or * instead of many hosts, and drop comments",
    clients=("unity",), bad=_padded(5001), good=_padded(3999),
)  # fmt: skip
def too_large_for_unity(document: LintDocument) -> Iterator[Hit]:
    # The NUL may be cut off: Unity does not need it.
    if document.reply_bytes - 1 > UNITY_BYTES:
        yield Hit(START, size=f"{document.reply_bytes - 1:,}")


@rule(
    "FP707", NOTE, "space-at-the-end",
    wrong='the file ends in a space: Lightspark takes only ">", a newline or NUL as the end of a reply',
    instead="remove the space: flashpol sends a NUL after it, but other servers may not",
    clients=("lightspark",), bad=GOOD + " ", good=GOOD + "\n",
)  # fmt: skip
def space_at_the_end(document: LintDocument) -> Iterator[Hit]:
    if document.data.endswith((b" ", b"\t")) and document.text:
        trimmed = document.text.rstrip(" \t")
        yield Hit(START.after(trimmed))


@rule(
    "FP708", WARNING, "not-ascii-for-unity", trap=True,
    wrong="the character {character} is not ASCII; Unity's manual asks for ASCII",
    instead="write plain ASCII, in comments too",
    clients=("unity",), bad=flash_file("<!-- \u00e9t\u00e9 -->", grant()), good=GOOD,
)  # fmt: skip
def not_ascii_for_unity(document: LintDocument) -> Iterator[Hit]:
    if document.fault is None and not document.text.isascii() and not document.typography:
        # FP110 and FP112 report characters that are wrong for every client.
        wrong = [error.location for error in (document.malformed, *document.stray) if error is not None]
        at = next(at for at, character in enumerate(document.text) if not character.isascii())
        where = START.after(document.text[:at])
        if where not in wrong:
            yield Hit(where, character=f"U+{ord(document.text[at]):04X}")


@rule(
    "FP709", WARNING, "site-control-voids", trap=True,
    wrong=f"Lightspark rejects a file with site-control unless port {MASTER_PORT} serves it: this one grants nothing",
    instead="remove site-control here",
    clients=("lightspark",), served_from=5222, bad=flash_file(control("all"), grant()), good=GOOD,
)  # fmt: skip
def site_control_voids(document: LintDocument) -> Iterator[Hit]:
    if not meant_for_master(document) and document.controls:
        yield Hit(document.controls[0].location)


@rule(
    "FP710", WARNING, "destination-asked-too",
    wrong=f"Lightspark also asks the destination port for a policy after port {MASTER_PORT}, since there is no"
    " site-control, and hangs if the application stays silent",
    instead='write <site-control permitted-cross-domain-policies="master-only"/>, or "all" if the application replies'
    " to policy requests; --allow and grants cannot: serve a policy file",
    clients=("lightspark",), served_from=MASTER_PORT, bad=GOOD, good=flash_file(control("all"), grant()),
)  # fmt: skip
def destination_asked_too(document: LintDocument) -> Iterator[Hit]:
    if document.served_from == MASTER_PORT and document.grants and not document.controls:
        yield Hit(document.grants[0].element.location)
