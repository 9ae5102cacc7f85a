"""Malformed XML: each mistake of operators, its place, and the words for it, which no release of expat changes."""

from xml.parsers import expat

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from flashpol.policy import DocumentError, parse
from flashpol.policy.rules import RULES
from flashpol.policy.xml_errors import find_declaration_mistake, find_mistake
from testkit.examples import examples

GRANT = '<allow-access-from domain="*" to-ports="80"/>'
POLICY = f"<cross-domain-policy>\n{GRANT}\n</cross-domain-policy>"


def body(inside: str) -> str:
    return f"<cross-domain-policy>\n  {inside}\n</cross-domain-policy>"


@pytest.mark.parametrize(
    ("text", "line", "column", "words"),
    [
        ("just words", 1, 1, 'the text "just words" precedes the root element; keep only the XML'),
        ("<!-- only a comment -->", 1, 24, 'the document has no root element; write <cross-domain-policy>'),
        ("<cross-domain-policy>", 1, 22, 'the document ends before its root element does; check for a cut-off file'),
        ("<cross-domain-policy/><a/>", 1, 23, 'something follows the root element: the element <a>; remove it'),
        ("<cross-domain-policy/>\nx", 2, 1, 'something follows the root element: the text "x"; remove it'),
        ("<?xml versoin='1.0'?><a/>", 1, 7, 'the XML declaration is malformed: it has no attribute "versoin"; w'),
        ("<?xml version=\u201c1.0\u201d?><a/>", 1, 15, 'the typographic character U+201C in the markup, as word'),
        ("<!-- a --><?xml version='1.0'?><a/>", 1, 11, 'an XML declaration in mid-document; keep one, at the be'),
        (body("<!\u2013 x \u2013>"), 2, 5, '2 typographic characters (U+2013) in the markup, as word processors'),
        (body("<!-- a -- b -->"), 2, 12, '"--" inside a comment; write a single hyphen there; only --> ends a c'),
        (body("<!-- unfinished"), 2, 3, 'the comment that begins here never ends; write "-->" at its end'),
        (body("<allow-access-from domain=\u201c*\u201d/>"), 2, 29, '2 typographic characters (U+201C, U+201D) i'),
        (body("<allow-access-from domain=\u2018*\u2019/>"), 2, 29, '2 typographic characters (U+2018, U+2019) i'),
        (body("<allow-access-from\xa0domain='*'/>"), 2, 21, 'the typographic character U+00A0 in the markup, as'),
        (body('<allow-access-from domain="x"to-ports="*"/>'), 2, 32, 'no space before the next attribute; write'),
        (body("<allow-access-from domain=*/>"), 2, 29, 'an attribute value without quotes; write attributes as '),
        (body("<allow-access-from secure/>"), 2, 22, 'the attribute secure has no value; write attributes as se'),
        (body('<allow-access-from domain="* to-ports="*"/>'), 2, 29, 'the value of domain has no closing quote;'),
        (body('<allow-access-from domain="*'), 2, 29, 'the value of domain has no closing quote; write " at the'),
        (body('<allow-access-from domain="*"'), 2, 3, 'the tag <allow-access-from> has no ">"; write "/>" at it'),
        (body('<allow-access-from domain="*" domain="*"/>'), 2, 33, 'the attribute domain is given twice; keep '),
        (body("<allow-access-from domain='a&b'/>"), 2, 31, 'a "&" that begins no reference; write &amp;'),
        (body("<allow-access-from domain='a & b'/>"), 2, 32, 'a "&" that begins no reference; write &amp;'),
        (body("<allow-access-from domain='&#0;'/>"), 2, 30, 'the reference "&#0;" in place of a NUL byte, which'),
        (body("<allow-access-from domain='&#xffff;'/>"), 2, 30, '"&#xffff;" refers to no character; write the c'),
        (body("<allow-access-from domain='&x;'/>"), 2, 30, 'the entity "&x;" is not defined; write the characte'),
        (body('<allow-access-from domain="*" to-ports="*">'), 3, 1, '</cross-domain-policy> does not end <allow'),
        (body("\x01"), 2, 3, 'the character U+0001 is not allowed; remove it'),
        (body("\ufffe"), 2, 3, 'the character U+FFFE is not allowed; remove it'),
        (body("<1/>"), 2, 4, 'a "<" that begins no tag; remove it, or write &lt;'),
        (body("< allow-access-from/>"), 2, 3, 'a space after "<"; remove the space'),
        ("&lt;cross-domain-policy&gt;&lt;/cross-domain-policy&gt;", 1, 1, 'markup escaped as text ("&lt;") prec'),
        ("%3Ccross-domain-policy%3E", 1, 1, 'URL-encoded markup ("%3C" for "<") precedes the root element; writ'),
        ("\\u003ccross-domain-policy/\\u003e", 1, 1, 'markup with escapes of program source ("\\u003c" for "<")'),
        (body("&lt;allow-access-from domain=&quot;*&quot; to-ports=&quot;80&quot;/&gt;"), 2, 3, 'markup escaped as te'),
        (body("&amp;lt;allow-access-from"), 2, 3, 'markup escaped as text ("&amp;lt;") between elements; write '),
        ('"<cross-domain-policy>\n' + GRANT + '\n</cross-domain-policy>"', 1, 1, 'a quote of program source pre'),
        ("'" + POLICY, 1, 1, 'a quote of program source precedes the root element; remove it'),
        (body('<allow-access-from domain=""*"" to-ports="80"/>'), 2, 29, 'doubled quotes ("") around the value '),
        (body("<allow-access-from domain=''*'' to-ports='80'/>"), 2, 29, "doubled quotes ('') around the value "),
        (body('<allow-access-from domain=\\"*\\" to-ports=\\"80\\"/>'), 2, 29, 'the quotes are escaped with ba'),
        (body("<allow-access-from domain=\\'*\\'/>"), 2, 29, "the quotes are escaped with backslashes (\\'); wr"),
        ('<?xml version=\\"1.0\\"?>' + POLICY, 1, 15, 'the quotes are escaped with backslashes (\\"); write pla'),
        ('<?xml version=""1.0"" encoding=""utf-8""?>' + POLICY, 1, 15, 'doubled quotes ("") around the value of'),
        ('<?xml version="1.0" encoding=""?>' + POLICY, 1, 21, 'the XML declaration is malformed: encoding is ""'),
        ('<?xml version="l.0"?>' + POLICY, 1, 1, 'the XML version is "l.0", with a letter in place of the digit'),
        ('<?xml version="1.1"?>' + POLICY, 1, 1, 'the XML version is "1.1"; write version="1.0"'),
        ('<?xml version="1.0"?' + POLICY, 1, 1, 'the XML declaration does not end with "?>"; write <?xml versio'),
        (body('<allow-access-from domain=&quot;*&quot; to-ports="80"/>'), 2, 29, 'the quotes are escaped as tex'),
        (body('<allow-access-from domain="*", to-ports="80"/>'), 2, 32, 'a comma between attributes; remove it:'),
        (body('<allow-access-from domain="*" , to-ports="80"/>'), 2, 33, 'a comma between attributes; remove it'),
        (body('<allow-access-from domain="*"; to-ports="80"/>'), 2, 32, 'a semicolon between attributes; remove'),
        (body('<allow-access-from domain="*" to-ports="" + port + ""/>'), 2, 45, 'string concatenation of progr'),
        (body('<allow-access-from domain="" . $d . "" to-ports="80"/>'), 2, 32, 'string concatenation of progra'),
        (body('<allow-access-from domain="*"" to-ports="80"/>'), 2, 32, 'a stray quote (") between attributes; '),
        (body('<allow-access-from domain="*" to-ports="80" "/>'), 2, 47, 'a stray quote (") between attributes;'),
        (body('<allow-access-from domain="*" to-ports="80"\\n/>'), 2, 46, 'the characters "\\n" in place of a l'),
        ('<cross-domain-policy>\\n' + GRANT + '\\n</cross-domain-policy>', 1, 22, 'the characters "\\n" in plac'),
        ('<cross-domain-policy>" +\n"' + GRANT + '" +\n"</cross-domain-policy>', 1, 22, 'string concatenation o'),
        (body(GRANT + ';'), 2, 48, 'the end of a statement of program source (";") between elements; remove it'),
        (body(GRANT + '"'), 2, 48, 'a quote of program source between elements; remove it'),
        ('<cross-domain-policy>\n' + GRANT + '\n<cross-domain-policy>', 3, 1, '<cross-domain-policy> begins a s'),
        ('<cross-domain-policy>\n' + GRANT + '\n</cross-domain-policy', 3, 1, 'the end tag </cross-domain-polic'),
        ('<cross-domain-policy>\n' + GRANT + '\n</cross-domain-policy;>', 3, 22, 'a semicolon; remove it: space'),
        ('<cross-domain-policy>\n' + GRANT + '\n</ cross-domain-policy>', 3, 1, 'a space after "</"; remove the space'),
        ("</cross-domain-policy>", 1, 1, 'the end tag </cross-domain-policy> has no start tag; write the root e'),
        (body("<allow-access-from domain=`*`/>"), 2, 29, 'backticks in place of quotes; write domain="value"'),
        (body("<allow-access-from domain:'*'/>"), 2, 22, 'a colon in place of "=" after domain:; write attribut'),
        (body('<allow-access-from domain = "*" to-ports: "80"/>'), 2, 35, 'a colon in place of "=" after to-por'),
        (body('<allow-access-from domain="*" to-ports="80" / >'), 2, 47, 'a "/" between attributes that does no'),
        (body('<allow-access-from domain="*" to-ports="80" \\>'), 2, 47, 'a backslash in place of "/"; end the tag'),
        (body('<allow-access-from domain="*"\\>'), 2, 32, 'a backslash in place of "/"; end the tag with "/>"'),
        (body(GRANT + "<\\x>"), 2, 48, 'a backslash in place of "/"; write </x>'),
        (body("<<allow-access-from/>"), 2, 3, 'a doubled "<"; write one "<"'),
        (body("<!- x -->"), 2, 3, 'a "<!" that begins no comment; write comments as <!-- -->'),
        (body("<allow-access-from domain='<?php echo $d; ?>'/>"), 2, 30, "program source in the value of domain that "),
        (body("<allow-access-from domain='<%= d %>'/>"), 2, 30, "program source in the value of domain that was not"),
        (body("<allow-access-from domain=\\x22*\\x22/>"), 2, 29, "the quotes are escaped with backslashes (\\x22); wr"),
        (body("<allow-access-from domain=\\u0022*\\u0022/>"), 2, 29, "the quotes are escaped with backslashes (\\u002"),
        (body("<allow-access-from domain=%22*%22/>"), 2, 29, "the quotes are URL-encoded (%22); write the quotes the"),
        (body("<allow-access-from domain=\u00ab*\u00bb/>"), 2, 29, "2 typographic characters (U+00AB, U+00BB) in the"),
        (body("<allow-access-from domain=\u00e2\u20ac\u0153*\u00e2\u20ac\x9d/>"), 2, 29, "a typographic character tha"),
        (body('<allow-access-from domain="*\u00e2\u20ac\x9d/>'), 2, 31, "a typographic character that was encoded twi"),
        (body("<Site-Control></site-control>"), 2, 17, "</site-control> does not end <Site-Control>, which is open; w"),
        ("<cross-domain-policy>\n" + GRANT + "\n<cross-domain-policy/>", 3, 1, "<cross-domain-policy/> in place of th"),
        ("<?XML version='1.0'?>" + POLICY, 1, 1, 'the XML declaration begins with "<?XML"; write "<?xml" in low'),
        ("<? xml version='1.0'?>" + POLICY, 1, 1, 'a space after "<?"; remove the space'),
        ("< ?xml version='1.0'?>" + POLICY, 1, 1, 'a space after "<"; remove the space'),
        ("<?version='1.0'?>" + POLICY, 1, 1, 'the XML declaration lacks "xml"; write <?xml version="1.0"?>'),
        ("<!doctype cross-domain-policy>" + POLICY, 1, 1, "the DOCTYPE is not in capital letters; remove the DOC"),
        (f"<![CDATA[{POLICY}]]>", 1, 1, 'a CDATA section precedes the root element; remove "<![CDATA[" and "]]>"'),
        (body(f"<![CDATA[{GRANT}]]>"), 2, 12, "markup in a CDATA section, where it is text; remove"),
        ("<<<XML\n" + POLICY, 1, 1, 'an operator of program source ("<<"); write the text that the program makes'),
        ("-e " + POLICY, 1, 1, 'the option "-e" of `echo` precedes the root element; remove it'),
        ("```xml\n" + POLICY, 1, 1, "the quotes of a text in program source or a blog (```) precedes the root element"),
        ('@"' + POLICY, 1, 1, 'a quote of program source (@") precedes the root element; remove it'),
        ("socket.write('" + POLICY, 1, 1, "a statement of program source precedes the root element; write the text"),
        ("var policy:XML =\n" + POLICY, 1, 1, "a statement of program source precedes the root element; write the"),
        ("<?php echo '<?xml version=\"1.0\"?>'; ?>" + POLICY, 1, 1, "PHP code that was not run; write the text that"),
        ("<?= $decl ?>" + POLICY, 1, 1, "PHP code that was not run; write the text that the program makes"),
        ("<?php echo '" + POLICY, 1, 1, "PHP code that was not run; write the text that the program makes"),
        ("<?php $p = '" + POLICY + "'; ?>", 1, 1, "PHP code that was not run; write the text that the program ma"),
        (body('<allow-access-from domain=" + "a.example" + "/>'), 2, 29, "string concatenation of program source; w"),
        ("\u00ef\u00bb\u00bf" + POLICY, 1, 1, "a byte order mark that was encoded twice precedes the root element; re"),
        ("<?xml version='1.0'?>\ufeff" + POLICY, 1, 22, "a byte order mark precedes the root element; remove U+FEFF"),
        (body("<allow-access-from domain='<a>'/>"), 2, 30, 'a "<" in the value of domain; write &lt;, or check '),
    ],
)  # fmt: skip
def test_parse_malformed_xml_names_cause_and_place(text: str, line: int, column: int, words: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(text.encode())
    assert str(caught.value).startswith(f"line {line}, column {column}: {words}")


@pytest.mark.parametrize(
    ("debris", "words"),
    [
        ("\\0", 'the characters "\\0" in place of a NUL byte; remove it: flashpol sends a NUL byte; a server of'),
        ("\\x00", 'the characters "\\x00" in place of a NUL byte; remove it: flashpol sends a NUL byte; a serve'),
        ("\\u0000", 'the characters "\\u0000" in place of a NUL byte; remove it: flashpol sends a NUL byte; a s'),
        ("\\n", 'the characters "\\n" in place of a line break; remove it, or write a line break'),
        ("\\r\\n", 'the characters "\\r\\n" in place of a line break; remove it, or write a line break'),
        ("/n", 'the characters "/n" in place of a line break; remove it, or write a line break'),
        ("/0", 'the characters "/0" in place of a NUL byte; remove it: flashpol sends a NUL byte; a server of y'),
        ("%00", 'the URL-encoded "%00" in place of a NUL byte; remove it: flashpol sends a NUL byte; a server o'),
        ("%0A", 'the URL-encoded "%0A" in place of a line break; remove it, or write a line break'),
        ("&#0;", 'the reference "&#0;" in place of a NUL byte, which XML cannot refer to; remove it: flashpol s'),
        ("&#x00;", 'the reference "&#x00;" in place of a NUL byte, which XML cannot refer to; remove it: flashp'),
        (";", 'the end of a statement of program source (";"); remove it'),
        ('";', 'the end of a statement of program source ("";"); remove it'),
        ('");', 'the end of a statement of program source ("");"); remove it'),
        ('"', 'a quote of program source; remove it'),
        ("'", 'a quote of program source; remove it'),
        ("`", 'a quote of program source; remove it'),
        ('" + "\\0"', 'string concatenation of program source; write the text'),
        ('" . "\\0";', 'string concatenation of program source; write the text'),
        ('" & vbNullChar', 'string concatenation of program source; write the text'),
        ("' + chr(0)", 'string concatenation of program source; write the text'),
        ("?>", 'the end of PHP code ("?>"); remove it'),
        ("]]>", 'the end of a CDATA section ("]]>"); remove it'),
        ("}", 'a bracket of program source; remove it'),
        (",", 'a comma; remove it'),
        ("</cross-domain-policy>", 'a second end tag </cross-domain-policy>; remove it'),
        ("</html>", 'an end tag without a start tag: </html>; remove it'),
        ("<?xml version='1.0'?>" + POLICY, 'a second XML document; keep one document'),
        ("<access-policy/>", 'a second root element, of the other dialect, <access-policy>; give each dialect it'),
        (GRANT, 'the element <allow-access-from>; move it inside <cross-domain-policy>'),
        ("<script>x</script>", 'the element <script>; remove it'),
        ("<!DOCTYPE a>", 'a DOCTYPE; write it before the root element, or remove it'),
        ("<", 'the text "<"; remove it'),
        ("< x", 'the text "< x"; remove it'),
        ("&lt;/x&gt;", 'markup escaped as text ("&lt;"); write < and > themselves, not their escapes'),
        ("<![CDATA[x]]>", 'a CDATA section; remove it'),
        ("hello", 'the text "hello"; remove it'),
    ],
)  # fmt: skip
def test_parse_text_after_the_root_names_what_follows(debris: str, words: str) -> None:
    for blank, place in (("", "line 3, column 23"), ("\n ", "line 4, column 2")):
        with pytest.raises(DocumentError) as caught:
            parse((POLICY + blank + debris).encode())
        assert str(caught.value).startswith(f"{place}: something follows the root element: {words}")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('String policy = "' + POLICY + '";', "a statement of program source precedes the root element"),
        ("return '" + POLICY, "a statement of program source precedes the root element"),
        ('print("' + POLICY + '")', "a statement of program source precedes the root element"),
        ("b'" + POLICY + "'", "a quote of program source (b') precedes the root element"),
        ('["' + POLICY + '"]', "a bracket of program source precedes the root element"),
        (POLICY.replace("</", "<\\/"), "a slash escaped with a backslash (\\/)"),
        (POLICY.replace("/>", "\\/>"), "a slash escaped with a backslash (\\/) between attributes"),
        (POLICY + "0", 'something follows the root element: the text "0" in place of a NUL byte'),
        (POLICY + "null", 'something follows the root element: the text "null" in place of a NUL byte'),
        (POLICY + "\\000", 'something follows the root element: the characters "\\000" in place of a NUL byte'),
        (POLICY + "\\012", 'something follows the root element: the characters "\\012" in place of a line break'),
        (POLICY + "10", 'something follows the root element: the text "10"'),
    ],
)
def test_parse_debris_of_program_source_is_named(text: str, words: str) -> None:
    with pytest.raises(DocumentError) as caught:
        parse(text.encode())
    assert words in str(caught.value)


# ------------------------------------------------------------------------------------------- the scanner and expat

PIECES = [
    *('"', "'", "<", ">", "/", "=", "&", "&lt;", "&#0;", '\\"', "\\n", " ", "\n", "<!--", "-->", "--", "<?xml", "?>"),
    *("<a>", "</a>", "<a/>", "]]>", "<![CDATA[", ",", ";", "\u201c", "\u2014", "x", "\x01", "</cross-domain-policy>"),
]
ORIGINALS = [
    each
    for rule in RULES
    for each in (rule.good, rule.bad)
    if isinstance(each, str) and "<!" not in each and each < "\ufeff"
]


@st.composite
def damaged(draw: st.DrawFn) -> str:
    text = draw(st.sampled_from(ORIGINALS).filter(lambda text: len(text) < 1500))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(text)))
        text = text[:at] + draw(st.sampled_from(PIECES)) + text[at + draw(st.sampled_from([0, 0, 1, 2, 5])) :]
    return text.lstrip(" \t\r\n")


@given(damaged())
@examples(500)
def test_find_mistake_finds_one_exactly_if_expat_refuses(text: str) -> None:
    """So no message depends on what expat says, nor on where it stops."""
    assume("[" not in text.partition("<cross")[0])
    assume(find_declaration_mistake(text) is None)  # checked first, since releases of expat differ in it
    try:
        expat.ParserCreate("utf-8").Parse(text.encode(), True)
    except expat.ExpatError:
        assert find_mistake(text) is not None
    else:
        assert find_mistake(text) is None
