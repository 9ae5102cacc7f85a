"""ActionScript 1 and 2 as bytecode of AVM1, from expressions in Python.

A function here returns the bytes of its action, so nested calls are nested expressions:

>>> socket = name("socket")
>>> code = variable("socket", new("XMLSocket")) + do(call(socket, "connect", "localhost", 7000))

An argument that is no bytes is a constant. An expression leaves one value on the stack; a statement leaves none.
"""

import struct

Value = bytes | str | int | bool | None

PUSH, POP, NOT = 0x96, 0x17, 0x12
GET_VARIABLE, SET_VARIABLE, DEFINE_LOCAL, GET_MEMBER, SET_MEMBER = 0x1C, 0x1D, 0x3C, 0x4E, 0x4F
CALL_FUNCTION, CALL_METHOD, NEW_OBJECT, INIT_OBJECT, DEFINE_FUNCTION = 0x3D, 0x52, 0x40, 0x43, 0x9B
IF, JUMP = 0x9D, 0x99
ADD, EQUALS, GREATER = 0x47, 0x49, 0x67
STRING, NULL, BOOLEAN, INTEGER = 0, 2, 5, 7


def action(code: int, content: bytes = b"") -> bytes:
    """Actions from 0x80 on have a content."""
    return struct.pack("<BH", code, len(content)) + content if code & 0x80 else bytes([code])


def value(constant: Value) -> bytes:
    """A constant as an expression; an expression as it is."""
    match constant:
        case bytes():
            return constant
        case None:
            content = bytes([NULL])
        case bool():
            content = bytes([BOOLEAN, constant])
        case int():
            content = struct.pack("<Bi", INTEGER, constant)
        case str():
            content = bytes([STRING]) + constant.encode() + b"\0"
    return action(PUSH, content)


# -------------------------------------------------------------------------------------------------------- expressions


def name(path: str) -> bytes:
    """A variable, or a member of one: `flash.external.ExternalInterface`."""
    first, *members = path.split(".")
    code = value(first) + action(GET_VARIABLE)
    for each in members:
        code = member(code, each)
    return code


def member(of: bytes, key: Value) -> bytes:
    return of + value(key) + action(GET_MEMBER)


def _arguments(arguments: tuple[Value, ...]) -> bytes:
    return b"".join(map(value, reversed(arguments))) + value(len(arguments))


def call(of: bytes, method: str, *arguments: Value) -> bytes:
    return _arguments(arguments) + of + value(method) + action(CALL_METHOD)


def call_function(function_name: str, *arguments: Value) -> bytes:
    return _arguments(arguments) + value(function_name) + action(CALL_FUNCTION)


def new(class_name: str, *arguments: Value) -> bytes:
    return _arguments(arguments) + value(class_name) + action(NEW_OBJECT)


def objects(**members: Value) -> bytes:
    """An object with these members."""
    pairs = b"".join(value(key) + value(each) for key, each in members.items())
    return pairs + value(len(members)) + action(INIT_OBJECT)


def function(parameters: str, *body: bytes) -> bytes:
    """parameters: their names, with blanks between them. body: statements."""
    code = b"".join(body)
    names = parameters.split()
    head = b"\0" + struct.pack("<H", len(names)) + b"".join(each.encode() + b"\0" for each in names)
    # The body is not part of the action, only its size is.
    return action(DEFINE_FUNCTION, head + struct.pack("<H", len(code))) + code


def add(*terms: Value) -> bytes:
    first, *rest = terms
    return value(first) + b"".join(value(each) + action(ADD) for each in rest)


def equal(left: Value, right: Value) -> bytes:
    return value(left) + value(right) + action(EQUALS)


def greater(left: Value, right: Value) -> bytes:
    return value(left) + value(right) + action(GREATER)


# --------------------------------------------------------------------------------------------------------- statements


def do(expression: bytes) -> bytes:
    """Compute it and drop the result."""
    return expression + action(POP)


def variable(to: str, new_value: Value) -> bytes:
    """Set a variable of the scope that has one of this name; otherwise one of the timeline."""
    return value(to) + value(new_value) + action(SET_VARIABLE)


def local(to: str, new_value: Value) -> bytes:
    """`var` within a function."""
    return value(to) + value(new_value) + action(DEFINE_LOCAL)


def set_member(of: bytes, key: Value, new_value: Value) -> bytes:
    return of + value(key) + value(new_value) + action(SET_MEMBER)


def assign(of: bytes, **members: Value) -> bytes:
    return b"".join(set_member(of, key, each) for key, each in members.items())


def when(condition: bytes, then: bytes, otherwise: bytes = b"") -> bytes:
    if otherwise:
        then += action(JUMP, struct.pack("<h", len(otherwise)))
    return condition + action(NOT) + action(IF, struct.pack("<h", len(then))) + then + otherwise
