"""What counts as a policy: decided here alone, by the root element or recognisable debris of one."""

import re

_ROOTS = ("cross-domain-policy", "access-policy")
# The elements inside these roots: by them a policy is recognised that has lost its root, or misspells it.
_CHILDREN = (
    "allow-access-from", "allow-http-request-headers-from", "site-control",
    "cross-domain-access", "allow-from", "grant-to", "socket-resource",
)  # fmt: skip
_NAMES = "|".join((*_ROOTS, *_CHILDREN))
# A policy that was cut off within its first tag has at least so many characters of the root's name.
_MIN_ROOT = 2
# A `<` of a policy that was escaped as text: by HTML, a URL, or a string of a program.
_ESCAPED = re.compile(rf"(?:&(?:amp;)*(?:lt|#0*60|#x0*3c);|%3c|\\x3c|\\u003c|\\074|\\<)\s*(?:{_NAMES})\b", re.I)
_TAG = re.compile(rf"<(?:(/?)([a-z_][a-z0-9_.:-]*)|\s+()({_NAMES})\b)([^<>]*)", re.I)
_HTML = re.compile(r"<(?:!doctype\s+html|html|head|body|title)\b", re.I)
_DOCTYPE = re.compile(rf"<!doctype\s+(?:{'|'.join(_ROOTS)})\b", re.I)
_VOID = ("area", "br", "hr", "img", "input", "link", "meta", "wbr", "p", "li")  # HTML writes these without an end tag
# Characters that are searched: a policy begins earlier, and the search is quadratic for hostile replies.
_MAX_CHARACTERS = 10_000


def is_policy(text: str) -> bool:
    """Return whether a text is a policy or recognisable debris of one.

    It has an element of a policy that is not part of another document. XML of a chat or a game, a page of HTML and an
    error message that mentions a policy have none.
    """
    text = _without_comments(text[:_MAX_CHARACTERS])
    if _HTML.match(text) or _DOCTYPE.match(text):
        return not _HTML.match(text)
    open_elements: list[str] = []
    for tag in _TAG.finditer(text):
        closing, name, rest = bool(tag[1]), (tag[2] or tag[4]).lower(), tag[5]
        if closing:
            if name in open_elements:
                del open_elements[open_elements.index(name) :]
            continue
        cut_off = tag.end() == len(text) and not rest
        if (depth := _depth_of_policy(name, cut_off=cut_off)) is not None:
            return len(open_elements) <= depth
        if name not in _VOID and not rest.rstrip().endswith("/"):
            open_elements.append(name)
    escaped = _ESCAPED.search(text)
    return escaped is not None and not _TAG.search(text, 0, escaped.start())


def is_html(text: str) -> bool:
    return bool(_HTML.match(_without_comments(text[:_MAX_CHARACTERS])))


def _depth_of_policy(name: str, *, cut_off: bool) -> int | None:
    """Return how many elements may be open around an element of a policy, and None for any other element."""
    local = name.rpartition(":")[2]
    if local in _ROOTS or (cut_off and len(name) >= _MIN_ROOT and any(root.startswith(name) for root in _ROOTS)):
        return 0
    return 1 if local in _CHILDREN else None  # below a misspelled root


def _without_comments(text: str) -> str:
    """Remove comments, and the blanks and the XML declaration at the beginning, in linear time."""
    parts = []
    at = 0
    while (begin := text.find("<!--", at)) >= 0 and (end := text.find("-->", begin)) >= 0:
        parts.append(text[at:begin])
        at = end + 3
    rest = ("".join(parts) + text[at:]).lstrip()
    if rest[:5].lower() == "<?xml" and "?>" in rest:
        return rest[rest.index("?>") + 2 :].lstrip()
    return rest
