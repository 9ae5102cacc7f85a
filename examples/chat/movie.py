"""The movie of the chat, in ActionScript 2: an XMLSocket and two text fields.

FlashVars: `host` and `port` of the chat; `nick`, or the movie asks for one. Comments say what an author would write in
Flash.
"""

from testkit.swf.avm1 import (
    Value,
    add,
    assign,
    call,
    call_function,
    do,
    equal,
    function,
    greater,
    local,
    member,
    name,
    new,
    set_member,
    variable,
    when,
)
from testkit.swf.movie import avm1_movie

WIDTH, HEIGHT = 520, 270
BAR, LINE = 36, 40  # heights of the bar with the state and of the line for input
INK, PAPER, BLUE, GREY, GREEN, RED = 0x1D2733, 0xFFFFFF, 0x1F4E79, 0x6B7785, 0x7BE495, 0xFFB3A7
ACCENT = 0xB0470A  # of names
LONGEST_NAME, LONGEST_TEXT, ENTER = 20, 200, 13

root = name("_root")


def rectangle(color: int, left: int, top: int, width: int, height: int) -> bytes:
    corners = [(left + width, top), (left + width, top + height), (left, top + height), (left, top)]
    return (
        do(call(root, "beginFill", color, 100))
        + do(call(root, "moveTo", left, top))
        + b"".join(do(call(root, "lineTo", *corner)) for corner in corners)
        + do(call(root, "endFill"))
    )


def text_format(color: int, align: str = "left") -> bytes:
    """A TextFormat with a device font. Ruffle has one of its own, in one weight."""
    return new("TextFormat", "_sans", 15, color, False, False, False, "", "", align)


def text_field(field: str, depth: int, left: int, top: int, width: int, height: int, form: bytes) -> bytes:
    return do(call(root, "createTextField", field, depth, left, top, width, height)) + do(
        call(name(field), "setNewTextFormat", form)
    )


def state(text: Value, color: int) -> bytes:
    """status.text = text; status.textColor = color;"""
    return assign(name("status"), text=text, textColor=color)


def write(text: Value, color: int = GREY, name_length: Value = 0) -> bytes:
    """write(text, color, nameLength): a line of the history that begins with a name."""
    return do(call_function("write", text, color, name_length))


def drawing() -> bytes:
    return b"".join(
        [
            rectangle(BLUE, 0, 0, WIDTH, BAR),
            rectangle(0xE6EBF0, 0, HEIGHT - LINE, WIDTH, LINE),
            rectangle(PAPER, 76, HEIGHT - LINE + 6, WIDTH - 84, LINE - 12),
            text_field("title", 1, 8, 7, 150, BAR - 8, text_format(PAPER)),
            assign(name("title"), text="XMLSocket chat", selectable=False),
            text_field("status", 2, 160, 7, WIDTH - 168, BAR - 8, text_format(PAPER, align="right")),
            assign(name("status"), selectable=False),
            text_field("history", 3, 4, BAR + 4, WIDTH - 8, HEIGHT - BAR - LINE - 8, text_format(INK)),
            assign(name("history"), multiline=True, wordWrap=True),
            text_field("prompt", 4, 4, HEIGHT - LINE + 9, 70, LINE - 12, text_format(INK, align="right")),
            assign(name("prompt"), selectable=False),
            text_field("input", 5, 78, HEIGHT - LINE + 8, WIDTH - 88, LINE - 14, text_format(INK)),
            assign(name("input"), type="input"),
        ]
    )


def functions() -> bytes:
    history, socket, message = name("history"), name("socket"), name("message")
    end = member(history, "length")
    return b"".join(
        [
            # var begin = history.length; history.replaceText(begin, begin, text + "\n");
            # paint(begin, history.length, color); paint(begin, begin + nameLength, BLUE);
            # history.scroll = history.maxscroll;
            variable(
                "write",
                function(
                    "text color nameLength",
                    local("begin", end),
                    do(call(history, "replaceText", name("begin"), name("begin"), add(name("text"), "\n"))),
                    do(call_function("paint", name("begin"), end, name("color"))),
                    when(
                        greater(name("nameLength"), 0),
                        do(call_function("paint", name("begin"), add(name("begin"), name("nameLength")), ACCENT)),
                    ),
                    assign(history, scroll=member(history, "maxscroll")),
                ),
            ),
            # var form = new TextFormat(); form.color = color; history.setTextFormat(begin, end, form);
            variable(
                "paint",
                function(
                    "begin end color",
                    local("form", new("TextFormat")),
                    assign(name("form"), color=name("color")),
                    do(call(history, "setTextFormat", name("begin"), name("end"), name("form"))),
                ),
            ),
            # socket.send(new XML().createElement(kind) with the attribute key = text)
            variable(
                "send",
                function(
                    "kind key text",
                    local("document", new("XML")),
                    local("message", call(name("document"), "createElement", name("kind"))),
                    set_member(member(message, "attributes"), name("key"), name("text")),
                    do(call(socket, "send", message)),
                ),
            ),
            variable(
                "connect",
                function(
                    "",
                    state("connecting …", PAPER),
                    variable("welcome", False),
                    variable("closed", False),
                    do(call(socket, "connect", name("host"), call_function("Number", name("port")))),
                ),
            ),
            # The first Enter is the name; later ones are what is said.
            variable(
                "enter",
                function(
                    "",
                    local("text", member(name("input"), "text")),
                    assign(name("input"), text=""),
                    when(
                        greater(member(name("text"), "length"), 0),
                        when(
                            equal(name("nick"), None),
                            do(call_function("start", name("text"))),
                            when(
                                name("closed"),
                                do(call_function("connect")),
                                do(call_function("send", "say", "text", name("text"))),
                            ),
                        ),
                    ),
                ),
            ),
            variable(
                "start",
                function(
                    "name",
                    variable("nick", name("name")),
                    assign(name("prompt"), text="say:"),
                    assign(name("input"), maxChars=LONGEST_TEXT),
                    do(call_function("connect")),
                ),
            ),
        ]
    )


def events() -> bytes:
    """What happens to the socket. Ruffle calls onConnect before it has connected, so the first message counts."""
    attributes = name("message.attributes")
    who, said = member(attributes, "name"), member(attributes, "text")

    def on(kind: str, *body: bytes) -> bytes:
        return when(equal(name("message.nodeName"), kind), b"".join(body))

    return assign(
        name("socket"),
        onConnect=function(
            "success",
            when(
                name("success"),
                do(call_function("send", "join", "name", name("nick"))),
                variable("closed", True)
                + state("no connection", RED)
                + write(add("The page has no socketProxy for ", name("host"), ":", name("port"), "."), INK),
            ),
        ),
        onXML=function(
            "document",
            local("message", name("document.firstChild")),
            on(
                "welcome",
                variable("welcome", True),
                state("connected", GREEN),
                write(add("Welcome, ", who, ". Others here: ", member(attributes, "others"), ".")),
            ),
            on("joined", write(add(who, " has joined."))),
            on("left", write(add(who, " has left."))),
            on("said", write(add(who, ": ", said), INK, add(member(who, "length"), 1))),
        ),
        onClose=function(
            "",
            variable("closed", True),
            when(
                name("welcome"),
                state("closed", RED) + write("The server closed the connection. Enter connects again."),
                state("closed", RED)
                + write("The connection was closed before the first byte.", INK)
                + write("Ruffle does not tell the content why; the operator of flashpol sees it."),
            ),
        ),
    )


def begin() -> bytes:
    listener = name("listener")
    return b"".join(
        [
            variable("listener", new("Object")),
            assign(
                listener,
                onKeyDown=function("", when(equal(call(name("Key"), "getCode"), ENTER), do(call_function("enter")))),
            ),
            do(call(name("Key"), "addListener", listener)),
            do(call(name("Selection"), "setFocus", name("input"))),
            when(
                equal(name("nick"), None),
                state("choose a name", PAPER)
                + assign(name("prompt"), text="name:")
                + assign(name("input"), maxChars=LONGEST_NAME),
                do(call_function("start", name("nick"))),
            ),
        ]
    )


def chat() -> bytes:
    """The SWF."""
    actions = drawing() + variable("socket", new("XMLSocket")) + functions() + events() + begin()
    return avm1_movie(actions, WIDTH, HEIGHT)
