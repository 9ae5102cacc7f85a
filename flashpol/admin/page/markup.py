"""HTML as values. What is not an element is text and is escaped: there is no way to forget it."""

import html


class Markup(str):
    """Text that is HTML already."""

    __slots__ = ()


VOID = frozenset({"input", "link", "meta"})


def text(value: object) -> Markup:
    """A value as it may stand in HTML. What no reader could see, or what turns text around, becomes U+FFFD."""
    if isinstance(value, Markup):
        return value
    plain = str(value)
    if not plain.isprintable():
        plain = "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in plain)
    return Markup(html.escape(plain))


def el(tag: str, /, *children: object, **attributes: object) -> Markup:
    """An element. Attributes that are None or False are left out; `class_` is class, `data_x` data-x.

    >>> el("p", "1 < 2 ", el("b", "!"), class_="note", hidden=True)
    '<p class="note" hidden>1 &lt; 2 <b>!</b></p>'
    """
    written = "".join(map(_attribute, attributes.items()))
    if tag in VOID:
        return Markup(f"<{tag}{written}>")
    return Markup(f"<{tag}{written}>{join(*children)}</{tag}>")


def _attribute(item: tuple[str, object]) -> str:
    name, value = item
    if value is None or value is False:
        return ""
    name = name.removesuffix("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{text(value)}"'


def join(*parts: object) -> Markup:
    return Markup("".join(map(text, parts)))
