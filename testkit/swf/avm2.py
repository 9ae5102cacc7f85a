"""ActionScript 3 as bytecode of AVM2: one class, its variables and its methods, from expressions in Python.

As in `avm1`, a function returns the bytes of an expression or a statement, and an argument that is no bytes is a
constant; but names and constants are in pools of the file, so the functions are methods of `Program`.
(ActionScript Virtual Machine 2 Overview.)
"""

import struct
from collections.abc import Callable

Value = bytes | str | int | bool | None

PACKAGE_NAMESPACE, QNAME = 0x16, 0x07
SLOT, METHOD = 0, 1
SEALED = 1
MAX_STACK, MAX_SCOPE = 32, 8  # more than any expression here needs
THIS, PUSH_SCOPE, POP_SCOPE, RETURN_VOID = b"\xd0", b"\x30", b"\x1d", b"\x47"
LABEL, POP = b"\x09", b"\x29"


def u30(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def s24(number: int) -> bytes:
    return (number & 0xFFFFFF).to_bytes(3, "little")


class Pool:
    """Entries that are referred to by their index, from 1 on: each kind is present once."""

    def __init__(self) -> None:
        self._entries: dict[bytes, int] = {}

    def index(self, entry: bytes) -> int:
        return self._entries.setdefault(entry, len(self._entries) + 1)

    def encoded(self) -> bytes:
        return u30(len(self._entries) + 1 if self._entries else 0) + b"".join(self._entries)


class Program:
    """A class that extends `base`.

    >>> program = Program("Main", "flash.display.Sprite")
    >>> program.method("", program.do(program.call(program.lex("flash.system.System"), "gc")))  # the constructor
    """

    def __init__(self, class_name: str, base: str) -> None:
        self.class_name, self.base = class_name, base
        self._ints, self._strings, self._namespaces, self._names = Pool(), Pool(), Pool(), Pool()
        self._slots: list[str] = []
        self._methods: list[tuple[str, int, int, bytes]] = []  # name, parameters, locals, code

    # ----------------------------------------------------------------------------------------------------------- pools

    def _string(self, text: str) -> int:
        return self._strings.index(u30(len(text.encode())) + text.encode())

    def _int(self, number: int) -> int:
        return self._ints.index(u30(number & 0xFFFFFFFF))

    def _name(self, path: str) -> int:
        """A public name: of a package, or without one."""
        package, _, short = path.rpartition(".")
        namespace = self._namespaces.index(bytes([PACKAGE_NAMESPACE]) + u30(self._string(package)))
        return self._names.index(bytes([QNAME]) + u30(namespace) + u30(self._string(short)))

    # ----------------------------------------------------------------------------------------------------- expressions

    def value(self, constant: Value) -> bytes:
        """A constant as an expression; an expression as it is."""
        match constant:
            case bytes():
                return constant
            case None:
                return b"\x20"
            case bool():
                return b"\x26" if constant else b"\x27"
            case int():
                return b"\x2d" + u30(self._int(constant))
            case str():
                return b"\x2c" + u30(self._string(constant))

    def _values(self, *constants: Value) -> bytes:
        return b"".join(map(self.value, constants))

    def lex(self, path: str) -> bytes:
        """A class, by its full name."""
        return b"\x60" + u30(self._name(path))

    def local(self, number: int) -> bytes:
        """A parameter from 1 on, then the local variables."""
        return b"\x62" + u30(number)

    def get(self, of: bytes, *path: str) -> bytes:
        return of + b"".join(b"\x66" + u30(self._name(each)) for each in path)

    def call(self, of: bytes, method: str, *arguments: Value) -> bytes:
        return of + self._values(*arguments) + b"\x46" + u30(self._name(method)) + u30(len(arguments))

    def new(self, class_name: str, *arguments: Value) -> bytes:
        index = u30(self._name(class_name))
        return b"\x5d" + index + self._values(*arguments) + b"\x4a" + index + u30(len(arguments))

    def plus(self, left: Value, right: Value) -> bytes:
        return self._values(left, right) + b"\xa0"

    def times(self, left: Value, right: Value) -> bytes:
        """Of two ints, modulo 2^32."""
        return self._values(left, right) + b"\xc7"

    def less(self, left: Value, right: Value) -> bytes:
        return self._values(left, right) + b"\xad"

    def equal(self, left: Value, right: Value) -> bytes:
        return self._values(left, right) + b"\xab"

    def negated(self, condition: bytes) -> bytes:
        return condition + b"\x96"

    # ------------------------------------------------------------------------------------------------------ statements

    def do(self, expression: bytes) -> bytes:
        return expression + POP

    def set(self, of: bytes, key: str, new_value: Value) -> bytes:
        return of + self.value(new_value) + b"\x61" + u30(self._name(key))

    def set_local(self, number: int, new_value: Value) -> bytes:
        return self.value(new_value) + b"\x63" + u30(number)

    def when(self, condition: bytes, then: bytes, otherwise: bytes = b"") -> bytes:
        if otherwise:
            then += b"\x10" + s24(len(otherwise))
        return condition + b"\x12" + s24(len(then)) + then + otherwise

    def loop(self, condition: bytes, *body: bytes) -> bytes:
        """While `condition`."""
        code = LABEL + b"".join(body)
        jump = 4  # bytes of a jump; it is relative to its end
        return b"\x10" + s24(len(code)) + code + condition + b"\x11" + s24(-(len(code) + len(condition) + jump))

    def count(self, number: int, below: Value, *body: bytes) -> bytes:
        """Run the body with an int local variable that goes from 0 to below `below`."""
        return self.set_local(number, self.value(0) + b"\x73") + self.loop(
            self.less(self.local(number), below), *body, b"\xc2" + u30(number)
        )

    # ----------------------------------------------------------------------------------------------------------- class

    def variable(self, key: str) -> None:
        self._slots.append(key)

    def method(self, key: str, *body: bytes, parameters: int = 0, local_variables: int = 0) -> None:
        """A method; with an empty name the constructor."""
        begin = THIS + PUSH_SCOPE + (b"" if key else THIS + b"\x49\x00")  # constructsuper
        self._methods.append((key, parameters, 1 + parameters + local_variables, begin + b"".join(body) + RETURN_VOID))

    def abc(self) -> bytes:
        """The file: version 46.16."""
        [constructor] = [number for number, each in enumerate(self._methods) if not each[0]]
        class_init, script_init = len(self._methods), len(self._methods) + 1
        base, own = u30(self._name(self.base)), u30(self._name(self.class_name))
        traits = [u30(self._name(key)) + bytes([SLOT]) + u30(0) * 3 for key in self._slots]
        traits += [
            u30(self._name(key)) + bytes([METHOD]) + u30(0) + u30(number)
            for number, (key, *_) in enumerate(self._methods)
            if key
        ]
        instance = own + base + bytes([SEALED]) + u30(0) + u30(constructor) + u30(len(traits)) + b"".join(traits)
        a_class = u30(class_init) + u30(0)
        make = [THIS, PUSH_SCOPE, b"\x65\x00", b"\x60", base, PUSH_SCOPE, b"\x60", base, b"\x58\x00", POP_SCOPE]
        make += [b"\x68", own, RETURN_VOID]  # newclass, initproperty
        bodies = [*self._methods, ("", 0, 1, RETURN_VOID), ("", 0, 1, b"".join(make))]
        script = u30(script_init) + u30(1) + own + bytes([4]) + u30(0) + u30(0)  # a trait: class 0 by its name
        infos = [u30(parameters) + u30(0) * (1 + parameters + 1) + b"\0" for _, parameters, _, _ in bodies]
        pools: list[Callable[[], bytes]] = [self._strings.encoded, self._namespaces.encoded]
        return b"".join(
            [
                struct.pack("<HH", 16, 46),
                self._ints.encoded(),
                u30(0) * 2,  # unsigned and floating point
                *(encoded() for encoded in pools),
                u30(0),  # sets of namespaces
                self._names.encoded(),
                u30(len(infos)) + b"".join(infos),
                u30(0),  # metadata
                u30(1) + instance + a_class,
                u30(1) + script,
                u30(len(bodies)) + b"".join(self._body(number, each) for number, each in enumerate(bodies)),
            ]
        )

    @staticmethod
    def _body(number: int, method: tuple[str, int, int, bytes]) -> bytes:
        _, _, registers, code = method
        head = u30(number) + u30(MAX_STACK) + u30(registers) + u30(0) + u30(MAX_SCOPE)
        return head + u30(len(code)) + code + u30(0) + u30(0)  # no exceptions, no traits
