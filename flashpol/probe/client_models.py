"""Models of the clients: which ports each asks for a policy, how long it waits, what it concludes.

Nothing is sent here. Each client is a row of `CLIENT_MODELS`, applied to what the probe observed. Their behaviour was
observed (Lightspark), is documented (Flash), or was read in sources (Unity's and Moonlight's); where nothing is known,
the stricter reading is used:

- Flash asks 843 and waits 3 s; then the locations that the content names, then the destination port, unless the
  meta-policy of 843 forbids it. The whole connect ends after 20 s.
- Lightspark does the same, and if 843 allows without `master-only` it asks the destination port too. It waits 3 s for a
  connection and without limit for a reply. It reads what its first receive returns, and goes on only after a full read
  of 4,096 bytes: then it hangs if no more bytes come and the server does not close (observed: replies of 4,096 to 9,000
  bytes that arrive at once are accepted from a server that closes).
- Unity asks 843, or the location that the content names with `PrefetchSocketPolicy`, over IPv4 only. It reads once.
- Silverlight asks only 943 and waits 10 s. It reads until a receive returns less than 256 bytes. Content may choose to
  have the policy fetched over HTTP from port 80 instead.

Inside TLS (`Question.tls`) there are three clients. Flash Player's SecureSocket asks the same ports as its Socket. The
own content of AIR needs no policy, and browsers with Ruffle ask for none: only their handshake with the destination
counts. Through a WebSocket (`Question.websocket`) there is the browser alone. At a media server (`Question.rtmp`) there
is Flash Player alone: others try one way, and what they get is among the findings.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from flashpol.policy import decide
from flashpol.policy.lint_document import LintDocument
from flashpol.policy.model import MetaPolicy
from flashpol.probe.exchange import Address, End, Exchange, Reached
from flashpol.probe.model import Observation, Question, Role, Target
from flashpol.probe.reply import Kind, Reply
from flashpol.probe.rtmp import judgement as rtmp
from flashpol.probe.tls.judgement import obstacle
from flashpol.probe.tls.offers import READS_INSIDE_TLS
from flashpol.probe.websocket.judgement import obstacle as obstacle_of_websocket
from flashpol.probe.websocket.upgrade import upgrade_of

FLASH_CONNECT = 20.0  # seconds for the whole connect, by default, from Flash Player 10 on
LIGHTSPARK_READ_BYTES = 4096
_MOONLIGHT_READS = 256


class ClientModel(NamedTuple):
    """A client. Times are in seconds; `silence` is how long it waits for a silent server, None without limit.

    `read` returns the bytes that the client takes for the policy, or None if it waits for more.
    """

    name: str
    roles: tuple[Role, ...]
    connect: float
    silence: float | None
    read: Callable[[Exchange], bytes | None]
    until_nul: bool = False  # reads until a NUL, or until the server closes
    first_only: bool = False  # reads only what one receive returns
    ipv4_only: bool = False
    whole: float | None = None  # seconds for everything
    asks_on: bool = False  # asks the destination port too, although 843 allowed it


@dataclass(frozen=True, slots=True)
class Conclusion:
    """What one client concludes about one address.

    `connects` is None if it depends on what was not asked: the content's origin, or the port. `waits` is the number of
    seconds until the user knows, None without limit. `finds` says whether the client found a policy, `denied` whether a
    policy denied the connection. `story` lists what the client did, `reason` its last step.
    """

    client: str
    address: Address
    connects: bool | None
    waits: float | None
    reason: str
    story: tuple[str, ...] = ()
    finds: bool = False
    denied: bool = False

    @property
    def verdict(self) -> str:
        if self.connects is None:
            return "finds a policy" if self.finds else "cannot tell"
        return "connects" if self.connects else "does not connect"

    @property
    def wait(self) -> str:
        return "waits without limit" if self.waits is None else f"after {self.waits:.2f} s"

    @property
    def sentence(self) -> str:
        return "; ".join((*self.story, self.reason))


def _flash(exchange: Exchange) -> bytes | None:
    reply = Reply.of(exchange)
    if reply.terminated or exchange.end is End.CLOSED:
        return reply.file
    return b"" if exchange.end is End.RESET else None


def _silverlight(exchange: Exchange) -> bytes | None:
    data = b""
    for event in exchange.received:
        data += event.data
        if len(event.data) < _MOONLIGHT_READS:
            return data
    return None if exchange.end is End.OPEN else data


def lightspark_reads(exchange: Exchange) -> bytes | None:
    """Read in steps of 4,096 bytes; after a full read Lightspark waits for more, until the server closes."""
    data = b""
    for event in exchange.received:
        data += event.data
        if len(event.data) % LIGHTSPARK_READ_BYTES:
            return data
    return None if exchange.end is End.OPEN else data


def _first(exchange: Exchange) -> bytes | None:
    """Read what one receive returns."""
    for event in exchange.received:
        return event.data
    return None if exchange.end is End.OPEN else b""


_ADOBE = (Role.MASTER, Role.LOCATION, Role.DESTINATION)
CLIENT_MODELS = (
    ClientModel("flash", _ADOBE, 3.0, 3.0, _flash, until_nul=True, whole=FLASH_CONNECT),
    ClientModel("lightspark", _ADOBE, 3.0, None, lightspark_reads, first_only=True, asks_on=True),
    ClientModel("unity", (Role.MASTER, Role.LOCATION), 3.0, None, _first, first_only=True, ipv4_only=True),
    ClientModel("silverlight", (Role.SILVERLIGHT, Role.SILVERLIGHT_HTTP), 10.0, 10.0, _silverlight),
)

_NOT_REACHED = {
    Reached.REFUSED: "refuses the connection",
    Reached.DROPPED: "does not answer the connection",
    Reached.UNREACHABLE: "cannot be reached",
    Reached.UNTRIED: "could not be tried from here",
}
_HTTP = "SocketClientAccessPolicyProtocol.Http"
_NOT_POLICY = {
    Kind.HTTP: "replies with HTTP",
    Kind.TLS: "replies with TLS",
    Kind.ECHO: "sends the request back",
    Kind.OTHER: "sends something that is not a policy",
}


def _never_ends(exchange: Exchange) -> str:
    if not exchange.received:
        return "accepts and stays silent"
    return f"sends {len(exchange.data):,} bytes and no end"


def conclusions(observation: Observation) -> tuple[Conclusion, ...]:
    """Return one conclusion for each address and client."""
    if observation.question.websocket is not None:
        return tuple(_through_websocket(observation))
    if observation.question.rtmp is not None:
        return tuple(_to_media_server(observation))
    if observation.question.tls:
        return tuple(_inside_tls(observation))
    return tuple(
        _Search(model, observation, address, targets).conclude()
        for address, targets in observation.targets.items()
        for model in CLIENT_MODELS
    )


def _through_websocket(observation: Observation) -> Iterator[Conclusion]:
    """Yield what browsers conclude. They connect if the pages of each origin that was asked for get a WebSocket."""
    question = observation.question
    for target in observation.all_targets(Role.WEBSOCKET):
        asked, connects = target.asked, False
        if asked.reached is not Reached.CONNECTED:
            why = f"port {target.port} {_NOT_REACHED[asked.reached]}"
        else:
            found = {origin: obstacle_of_websocket(target, origin, observation) for origin in question.origins}
            refused = {origin: f"port {target.port} {words}" for origin, words in found.items() if words}
            origin, why = next(iter(refused.items()), ("", ""))
            if why and len(refused) < len(question.origins):
                why += f" (to {len(refused)} of {len(question.origins)} origins, the first {origin})"
            connects = not why
            why = why or f"port {target.port} opens a WebSocket for pages of {', '.join(question.origins)}"
        unknown = asked.reached is Reached.UNTRIED
        replied = upgrade_of(asked).replied
        seconds = asked.ended if replied is None else replied
        yield Conclusion("browser", target.address, None if unknown else connects, seconds, why)


def _to_media_server(observation: Observation) -> Iterator[Conclusion]:
    """Yield what Flash Player concludes: it tries one way after the other until one works."""
    for address in observation.targets:
        tried = rtmp.fallback(observation, address)
        story = tuple(f"{target.way} {found.words}" for target, found in tried.failed)
        connects: bool | None = None
        if tried.works is not None:
            target, found = tried.works
            refusal = rtmp.refusal(target)
            connects, reason = not refusal, f"{target.way} {refusal or found.words}"
        elif all(found.works is None for _, found in tried.failed):
            reason = "nothing is known about this address"
        else:
            connects, reason = False, "no way works"
        yield Conclusion("flash", address, connects, tried.seconds, reason, story)


def _inside_tls(observation: Observation) -> Iterator[Conclusion]:
    """Yield the conclusions of the clients that matter: about the others some things were not tried."""
    models = {model.name: model for model in CLIENT_MODELS}
    for address, targets in observation.targets.items():
        for client in observation.question.clients:
            if client in READS_INSIDE_TLS:
                yield _Search(models[client], observation, address, targets).conclude()
            else:
                yield from (_connects(client, observation, target) for target in targets if target.content_connects)


def _connects(client: str, observation: Observation, destination: Target) -> Conclusion:
    """Return what a client concludes that asks for no policy, and connects to the destination inside TLS."""
    asked, port = destination.asked, destination.port
    connects: bool | None = False
    if asked.reached is not Reached.CONNECTED:
        reason = f"port {port} {_NOT_REACHED[asked.reached]}"
        connects = None if asked.reached is Reached.UNTRIED else False
    elif reason := obstacle(destination, client, observation):
        reason = f"port {port} {reason}"
    else:
        connects, reason = True, f"port {port} takes its handshake, and has a certificate for {observation.name}"
    seconds = asked.tls.ended if asked.tls is not None else asked.ended
    return Conclusion(client, destination.address, connects, seconds, reason)


def meta_policy(target: Target) -> MetaPolicy:
    """Return the meta-policy of port 843 as Flash reads it: a value that sockets do not have counts as `none`."""
    controls = LintDocument(target.reply.file, target.served_from, frozenset(("flash",))).controls
    values = {element.attributes.get("permitted-cross-domain-policies", "") for element in controls}
    known = {meta.value for meta in MetaPolicy}
    if values - known or MetaPolicy.NONE.value in values:
        return MetaPolicy.NONE
    return MetaPolicy.MASTER_ONLY if MetaPolicy.MASTER_ONLY.value in values else MetaPolicy.ALL


@dataclass
class _Search:
    model: ClientModel
    observation: Observation
    address: Address
    targets: Iterable[Target]
    clock: float = 0.0
    story: list[str] = field(default_factory=list)
    found: Target | None = None
    refusal: str = ""
    denied: bool = False

    @property
    def question(self) -> Question:
        return self.observation.question

    def conclude(self) -> Conclusion:
        if self.model.ipv4_only and self.address.is_ipv6:
            return self._end(False, "uses IPv4 only")
        by_role = {target.role: target for target in self.targets}
        for role in self.model.roles:
            target = by_role.get(role)
            if target is None:
                continue
            data = self._fetch(target) if role is Role.SILVERLIGHT_HTTP else self._ask(target)
            if data is None:
                if self.model.silence is None and target.asked.end is End.OPEN:
                    return self._end(False, "it waits without limit", unlimited=True)
                if self.model.whole is not None and self.clock >= self.model.whole:
                    return self._end(False, f"its {self.model.whole:g} s are over")
                continue
            self.found = self.found or target
            if self._allows(target, data):
                if role is Role.SILVERLIGHT_HTTP:
                    return self._end(None, f"the policy of port {target.port} is for content that chooses {_HTTP}")
                return self._connect(by_role, target)
            if role is Role.MASTER and (meta := meta_policy(target)) is not MetaPolicy.ALL:
                self.refusal += f"; {meta.value} there forbids it to ask any other port"
                break
        return self._end_without()

    def _fetch(self, target: Target) -> bytes | None:
        """Return the policy that port 80 serves over HTTP. Content chooses one of the ports: its time counts alone."""
        if not target.serves:
            how = _NOT_REACHED.get(target.asked.reached, "serves no clientaccesspolicy.xml")
            self.story.append(f"port {target.port} {how}")
            return None
        self.clock = target.asked.ended
        return target.reply.file

    def _ask(self, target: Target) -> bytes | None:
        """Return the policy that the client reads, if any, and advance the clock by the time that takes."""
        asked, port = target.asked, target.port
        if self.refusal:
            self.story.append(self.refusal)
            self.refusal = ""
        if asked.reached is not Reached.CONNECTED:
            if asked.reached is Reached.DROPPED:
                self._spend(target, self.model.connect)
            else:
                self.clock += asked.ended
            self.story.append(f"port {port} {_NOT_REACHED[asked.reached]}")
            return None
        if why := obstacle(target, self.model.name, self.observation):
            self.clock += asked.tls.ended if asked.tls is not None else asked.ended
            self.story.append(f"port {port} {why}")
            return None
        data = self.model.read(asked)
        if data is None:
            self._spend(target, self.model.silence or 0.0)
            self.story.append(f"port {port} {_never_ends(asked)}")
            return None
        self.clock += self._came(target, len(data))
        kind = Reply(data, asked.end).kind
        if target.serves and self.model.first_only and 0 < len(data) < target.reply.xml_size:
            self.refusal = f"the policy of port {port} comes in parts, and it reads only the first"
            self.denied = True
        elif kind is Kind.POLICY:
            return data
        elif kind is Kind.NOTHING:
            how = "resets the connection" if asked.end is End.RESET else "closes without a reply"
            self.story.append(f"port {port} {how}")
        else:
            self.story.append(f"port {port} {_NOT_POLICY[kind]}")
        return None

    def _came(self, target: Target, size: int) -> float:
        """Return when the client had received `size` bytes and knew that the policy was complete."""
        asked, total = target.asked, 0
        if size and (target.reply.terminated or not self.model.until_nul):
            for event in asked.received:
                total += len(event.data)
                if total >= size:
                    return event.at
        return asked.ended

    def _spend(self, target: Target, seconds: float) -> None:
        """Wait without success: on 843 for `seconds`, elsewhere until the limit of the whole connect, if any."""
        whole = self.model.whole
        if whole is not None and target.role is not Role.MASTER and seconds >= self.model.connect:
            self.clock = whole
        else:
            self.clock += seconds

    def _allows(self, target: Target, data: bytes) -> bool:
        if self.question.content is None or self.question.port is None:
            return True
        [decision] = decide(
            data,
            self.question.content,
            self.question.port,
            served_from=target.served_from,
            clients=(self.model.name,),
        )
        if not decision.allowed:
            self.refusal = f"the policy of port {target.port} denies it: {decision.reason}"
            self.denied = True
        return decision.allowed

    def _connect(self, by_role: dict[Role, Target], source: Target) -> Conclusion:
        destination = next((target for target in self.targets if target.port == self.question.port), None)
        if destination is not None and destination.asked.reached is not Reached.CONNECTED:
            why = f"port {destination.port} itself {_NOT_REACHED[destination.asked.reached]}"
            return self._end(False, why)
        if destination is not None and (why := obstacle(destination, self.model.name, self.observation)):
            return self._end(False, f"port {destination.port} itself {why}")
        if (
            self.model.asks_on
            and source.role is Role.MASTER
            and (other := by_role.get(Role.DESTINATION))
            and meta_policy(source) is MetaPolicy.ALL
            and other.asked.silent
        ):
            self.story.append(f"port {source.port} serves a policy without master-only")
            return self._end(
                False, f"it asks port {other.port} too, which stays silent: it waits without limit", unlimited=True
            )
        known = self.question.content is not None and self.question.port is not None
        how = "allows it" if known else "is there"
        return self._end(True if known else None, f"the policy of port {source.port} {how}")

    def _end_without(self) -> Conclusion:
        if all(target.asked.reached is Reached.UNTRIED for target in self.targets):
            return self._end(None, "nothing is known about this address")
        if self.denied:
            return self._end(False, self.refusal or "no other port that it asks allows it")
        if self.question.port is None and Role.DESTINATION in self.model.roles:
            return self._end(None, "the destination port may serve one: name it with --port")
        return self._end(False, "no port that it asks serves a policy")

    def _end(self, connects: bool | None, reason: str, *, unlimited: bool = False) -> Conclusion:
        return Conclusion(
            client=self.model.name,
            address=self.address,
            connects=connects,
            waits=None if unlimited else self.clock,
            reason=reason,
            story=tuple(self.story),
            finds=self.found is not None,
            denied=self.denied and connects is False,
        )
