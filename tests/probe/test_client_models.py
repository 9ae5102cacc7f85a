"""What each client concludes and how long its user waits, as observed and as documented.

Observed with Lightspark: 843 refused or closed at once, the destination is asked immediately; dropped, after 3 s; a
silent server, no end; a policy in two segments, denied; `master-only`, no other port is asked; 843 denies and the
destination allows, allowed; HTTP on 843, the destination is asked.
"""

import socket

import pytest

from flashpol.policy.model import MetaPolicy
from flashpol.probe import Observation, Question
from flashpol.probe.client_models import Conclusion, conclusions, meta_policy
from flashpol.probe.exchange import Address, End, Event, Exchange, Reached, What
from flashpol.probe.model import Role, Target

HERE = Address(socket.AF_INET, "192.0.2.1")
SIX = Address(socket.AF_INET6, "2001:db8::1")
PORTS = {
    Role.MASTER: 843,
    Role.LOCATION: 8430,
    Role.DESTINATION: 1935,
    Role.SILVERLIGHT: 943,
    Role.SILVERLIGHT_HTTP: 80,
}
AT = 0.25  # seconds: when what comes has come


def policy(ports: str = "1935", control: str = "", domain: str = "*") -> bytes:
    site = f'<site-control permitted-cross-domain-policies="{control}"/>' if control else ""
    grant = f'<allow-access-from domain="{domain}" to-ports="{ports}"/>'
    return f"<cross-domain-policy>{site}{grant}</cross-domain-policy>".encode()


SILVERLIGHT = (
    b'<access-policy><cross-domain-access><policy><allow-from><domain uri="*"/></allow-from>'
    b'<grant-to><socket-resource port="4502-4506" protocol="tcp"/></grant-to></policy></cross-domain-access>'
    b"</access-policy>"
)
ALLOWS, ALONE, DENIES = policy() + b"\0", policy(control="master-only") + b"\0", policy("1936") + b"\0"
DENIES_ALONE, FORBIDS = policy("1936", "master-only") + b"\0", policy(control="none") + b"\0"

Did = Reached | End | bytes | tuple[object, ...]
SILENT, REFUSED, DROPPED = End.OPEN, Reached.REFUSED, Reached.DROPPED


def exchange(port: int, did: Did, address: Address = HERE) -> Exchange:
    """`did`: the outcome of connect, or the pieces that came and how the connection ended."""
    if isinstance(did, Reached):
        return Exchange(address, port, did, 0.01 if did is REFUSED else 3.0, "why")
    *pieces, last = did if isinstance(did, tuple) else (did,)
    end = last if isinstance(last, End) else End.CLOSED
    data = [piece for piece in (*pieces, last) if isinstance(piece, bytes)]
    events = [Event(0.1, What.CONNECTED), *(Event(AT, What.RECEIVED, piece) for piece in data)]
    ended = 3.1 if end is End.OPEN else AT
    return Exchange(address, port, Reached.CONNECTED, ended, "", end, (*events, Event(ended, What.ENDED)))


def concluded(
    client: str, address: Address = HERE, content: str | None = "http://a.example/", port: int | None = 1935, **did: Did
) -> Conclusion:
    targets = tuple(
        Target(role, address, PORTS[role], exchange(PORTS[role], did[role.name.lower()], address))
        for role in PORTS
        if role.name.lower() in did
    )
    question = Question(port=port, content=content if port else None)
    [found] = [c for c in conclusions(Observation("h", question, {address: targets})) if c.client == client]
    return found


@pytest.mark.parametrize(
    ("client", "master", "destination", "connects", "waits"),
    [
        # Flash: 3 s for 843, 20 s for the whole connect.
        ("flash", ALLOWS, SILENT, True, AT),
        ("flash", REFUSED, ALLOWS, True, 0.01 + AT),
        ("flash", DROPPED, ALLOWS, True, 3 + AT),
        ("flash", SILENT, ALLOWS, True, 3 + AT),
        ("flash", End.CLOSED, ALLOWS, True, 2 * AT),
        ("flash", b"HTTP/1.1 404 Not Found\r\n\r\n", ALLOWS, True, 2 * AT),
        ("flash", DENIES, ALLOWS, True, 2 * AT),
        ("flash", DENIES_ALONE, ALLOWS, False, AT),
        ("flash", FORBIDS, ALLOWS, False, AT),
        ("flash", REFUSED, SILENT, False, 20.0),
        ("flash", DROPPED, SILENT, False, 20.0),
        ("flash", (ALLOWS[:60], ALLOWS[60:]), SILENT, True, AT),
        ("flash", (ALLOWS[:-1], End.OPEN), ALLOWS, True, 3 + AT),
        ("flash", (ALLOWS[:40], End.RESET), ALLOWS, True, 2 * AT),
        ("flash", ALLOWS, REFUSED, False, AT),
        # Lightspark: the table of what was observed.
        ("lightspark", ALONE, SILENT, True, AT),
        ("lightspark", ALLOWS, SILENT, False, None),
        ("lightspark", ALLOWS, ALLOWS, True, AT),
        ("lightspark", REFUSED, ALLOWS, True, 0.01 + AT),
        ("lightspark", End.CLOSED, ALLOWS, True, 2 * AT),
        ("lightspark", DROPPED, ALLOWS, True, 3 + AT),
        ("lightspark", SILENT, ALLOWS, False, None),
        ("lightspark", REFUSED, SILENT, False, None),
        ("lightspark", DENIES, ALLOWS, True, 2 * AT),
        ("lightspark", b"HTTP/1.1 404 Not Found\r\n\r\n", ALLOWS, True, 2 * AT),
        ("lightspark", (ALONE[:60], ALONE[60:]), End.CLOSED, False, 2 * AT),
        ("lightspark", ALONE[:-1], SILENT, True, AT),
        ("lightspark", (ALONE[:-1], End.OPEN), SILENT, True, AT),
        ("lightspark", ALONE[:-1] + b"\r\n\0", SILENT, True, AT),
        ("lightspark", (ALONE, End.OPEN), SILENT, True, AT),
        # Unity: 843 only, one receive, no time-out for it.
        ("unity", ALLOWS, SILENT, True, AT),
        ("unity", (ALLOWS[:60], ALLOWS[60:]), SILENT, False, AT),
        ("unity", (ALLOWS[:-1], End.OPEN), SILENT, True, AT),
        ("unity", SILENT, ALLOWS, False, None),
        ("unity", REFUSED, ALLOWS, False, 0.01),
    ],
)
def test_client_model_with_master_and_destination_connects_after(
    client: str, master: Did, destination: Did, connects: bool, waits: float | None
) -> None:
    conclusion = concluded(client, master=master, destination=destination)
    assert conclusion.connects is connects, conclusion.sentence
    assert conclusion.waits == (None if waits is None else pytest.approx(waits))


def test_silverlight_model_over_http_depends_on_the_content() -> None:
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(SILVERLIGHT), SILVERLIGHT)
    found = concluded("silverlight", port=4502, silverlight=REFUSED, silverlight_http=reply)
    assert (found.connects, found.finds) == (None, True)
    assert found.reason.endswith("SocketClientAccessPolicyProtocol.Http")
    denied = concluded("silverlight", port=1935, silverlight=REFUSED, silverlight_http=reply)
    assert (denied.connects, denied.denied) == (False, True)
    assert concluded("silverlight", port=4502, silverlight=SILVERLIGHT, silverlight_http=reply).connects is True


def padded(size: int) -> bytes:
    """A policy whose reply, NUL included, has this size."""
    return ALONE.replace(b"><a", b">" + b" " * (size - len(ALONE)) + b"<a")


@pytest.mark.parametrize(
    ("reply", "waits"),
    [
        (padded(4096), AT),  # the server closes
        ((padded(4096), End.OPEN), None),
        ((padded(8192), End.OPEN), None),
        ((padded(4095), End.OPEN), AT),
        ((padded(4097), End.OPEN), AT),
        (padded(9000), AT),
        ((padded(5000)[:4096], padded(5000)[4096:], End.OPEN), AT),  # the first read is full, so it reads on
    ],
)
def test_lightspark_model_after_full_read_waits_for_close(reply: Did, waits: float | None) -> None:
    found = concluded("lightspark", master=reply, destination=SILENT)
    assert (found.waits, found.finds) == (waits, waits is not None)
    assert waits is not None or found.reason == "it waits without limit"


def test_lightspark_model_of_large_policy_in_parts_denies() -> None:
    found = concluded("lightspark", content=None, master=(padded(2000)[:1448], padded(2000)[1448:]), destination=SILENT)
    assert found.denied or found.connects is False
    assert "comes in parts" in found.sentence


def test_silverlight_model_with_any_master_asks_only_943() -> None:
    def asked(did: Did, port: int = 4502) -> Conclusion:
        return concluded("silverlight", port=port, master=ALLOWS, silverlight=did)

    assert asked(SILVERLIGHT).connects is True
    assert asked(SILVERLIGHT, 1935).connects is False
    assert (asked(SILENT).connects, asked(SILENT).waits) == (False, 10.0)
    assert (asked(DROPPED).connects, asked(DROPPED).waits) == (False, 10.0)
    assert asked(ALLOWS).connects is False


def test_unity_model_on_ipv6_does_not_connect() -> None:
    assert concluded("unity", SIX, master=ALLOWS).connects is False
    assert concluded("flash", SIX, master=ALLOWS).connects is True


def test_flash_model_with_location_asks_it_before_the_destination() -> None:
    found = concluded("flash", master=REFUSED, location=ALLOWS, destination=SILENT)
    assert (found.connects, found.reason) == (True, "the policy of port 8430 allows it")


def test_flash_model_with_silent_location_uses_its_whole_connect_time() -> None:
    found = concluded("flash", master=REFUSED, location=SILENT, destination=ALLOWS)
    assert (found.connects, found.waits, found.reason) == (False, 20.0, "its 20 s are over")


def test_conclusion_without_content_or_port_is_unknown() -> None:
    found = concluded("flash", content=None, master=ALLOWS, destination=SILENT)
    assert (found.connects, found.finds) == (None, True)
    none_yet = concluded("flash", port=None, master=REFUSED)
    assert (none_yet.connects, none_yet.finds) == (None, False)
    assert "--port" in none_yet.reason


def test_conclusion_about_untried_address_is_unknown() -> None:
    found = concluded("flash", master=Reached.UNTRIED, destination=Reached.UNTRIED)
    assert (found.connects, found.verdict) == (None, "cannot tell")


def test_story_of_several_ports_names_each_port_and_reason() -> None:
    found = concluded("flash", master=DROPPED, location=b"HTTP/1.1 200 OK\r\n\r\n", destination=DENIES)
    first, second = found.story
    assert first == "port 843 does not answer the connection"
    assert second == "port 8430 replies with HTTP"
    assert found.reason.startswith("the policy of port 1935 denies it: ")
    assert found.denied


@pytest.mark.parametrize(
    ("text", "meta"),
    [
        (policy(), MetaPolicy.ALL),
        (policy(control="all"), MetaPolicy.ALL),
        (policy(control="master-only"), MetaPolicy.MASTER_ONLY),
        (policy(control="none"), MetaPolicy.NONE),
        (policy(control="by-content-type"), MetaPolicy.NONE),
        (b"no policy at all", MetaPolicy.ALL),
    ],
)
def test_meta_policy_of_master_reads_it_as_flash_does(text: bytes, meta: MetaPolicy) -> None:
    assert meta_policy(Target(Role.MASTER, HERE, 843, exchange(843, text))) is meta
