"""Movies that the page controls: they open a socket, send, and report what happens by `report(event, detail)`.

The page calls `open(host, port)`, `send(text)` and `close()`; and in AVM2 `pattern(words)`, which sends as many
32-bit words, whose echo the movie compares and reports as `pattern` with the number of wrong words.
"""

import struct

from testkit.swf import avm1
from testkit.swf.avm2 import THIS, Program
from testkit.swf.movie import avm1_movie, avm2_movie

FACTOR = 0x9E3779B1 - (1 << 32)  # odd, so that no two words of a pattern are equal
EXTERNAL = "flash.external.ExternalInterface"


def pattern(words: int) -> bytes:
    """What `pattern(words)` sends."""
    return b"".join(struct.pack(">I", number * FACTOR & 0xFFFFFFFF) for number in range(words))


def xml_socket() -> bytes:
    """AVM1's XMLSocket: messages of text, each with a NUL at its end."""
    socket, external = avm1.name("socket"), avm1.name(EXTERNAL)

    def report(event: str, detail: avm1.Value = "") -> bytes:
        return avm1.do(avm1.call(external, "call", "report", event, detail))

    def callback(called: str, parameters: str, *body: bytes) -> bytes:
        return avm1.do(avm1.call(external, "addCallback", called, None, avm1.function(parameters, *body)))

    return avm1_movie(
        avm1.variable("socket", avm1.new("XMLSocket"))
        + avm1.assign(
            socket,
            onConnect=avm1.function("success", report("connect", avm1.name("success"))),
            onClose=avm1.function("", report("close")),
            onData=avm1.function("text", report("data", avm1.name("text"))),
        )
        + callback("open", "host port", avm1.do(avm1.call(socket, "connect", avm1.name("host"), avm1.name("port"))))
        + callback("send", "text", avm1.do(avm1.call(socket, "send", avm1.name("text"))))
        + callback("close", "", avm1.do(avm1.call(socket, "close")))
        + report("loaded")
    )


def socket() -> bytes:
    """AVM2's flash.net.Socket: bytes."""
    p = Program("Main", "flash.display.Sprite")
    for variable in ("socket", "words"):
        p.variable(variable)
    socket, words, external = p.get(THIS, "socket"), p.get(THIS, "words"), p.lex(EXTERNAL)
    waiting = p.get(socket, "bytesAvailable")

    def report(event: str, detail: bytes | str = "") -> bytes:
        return p.do(p.call(external, "call", "report", event, detail))

    def word(number: int) -> bytes:
        return p.times(p.local(number), FACTOR)

    events = {
        "connect": "onConnect",
        "close": "onClose",
        "socketData": "onData",
        "ioError": "onError",
        "securityError": "onError",
    }
    p.method(
        "",
        p.set(THIS, "words", 0),
        p.set(THIS, "socket", p.new("flash.net.Socket")),
        *(p.do(p.call(socket, "addEventListener", event, p.get(THIS, method))) for event, method in events.items()),
        *(p.do(p.call(external, "addCallback", key, p.get(THIS, key))) for key in ("open", "send", "close", "pattern")),
        report("loaded"),
    )
    p.method("onConnect", report("connect", p.value(True)), parameters=1)
    p.method("onClose", report("close"), parameters=1)
    p.method("onError", report("error", p.get(p.local(1), "text")), parameters=1)
    p.method("open", p.do(p.call(socket, "connect", p.local(1), p.local(2))), parameters=2)
    flush = p.do(p.call(socket, "flush"))
    p.method("send", p.do(p.call(socket, "writeUTFBytes", p.local(1))), flush, parameters=1)
    p.method("close", p.do(p.call(socket, "close")))
    p.method(
        "pattern",
        p.set(THIS, "words", p.local(1)),
        p.count(2, p.local(1), p.do(p.call(socket, "writeInt", word(2)))),
        flush,
        parameters=1,
        local_variables=1,
    )
    wrong, number = 2, 3
    compare = p.when(
        p.negated(p.equal(p.call(socket, "readInt"), word(number))), p.set_local(wrong, p.plus(p.local(wrong), 1))
    )
    p.method(
        "onData",
        p.when(
            p.equal(words, 0),
            report("data", p.call(socket, "readUTFBytes", waiting)),
            p.when(
                p.negated(p.less(waiting, p.times(words, 4))),
                p.set_local(wrong, 0)
                + p.count(number, words, compare)
                + p.set(THIS, "words", 0)
                + report("pattern", p.local(wrong)),
            ),
        ),
        parameters=1,
        local_variables=2,
    )
    return avm2_movie(p.abc(), "Main")
