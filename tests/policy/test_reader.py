"""Text to elements: places, limits, and XML that must not do what it can."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.policy import DocumentError, LimitError, Location, PolicyError, parse
from flashpol.policy.decoding import START
from flashpol.policy.reader import MAX_ATTRIBUTES, MAX_DEPTH, MAX_ELEMENTS, Element, _Builder, read
from testkit.examples import examples

# A bound, in CPU seconds, that only work out of proportion to the input can reach: the files below take 0.25 and less,
# or some 2 with every line traced; quadratic work on 1 MB would take minutes.
BOUND = 20.0


def any_root(element: Element) -> None:
    pass


def test_read_elements_have_their_places() -> None:
    root = read('<!-- \u00e9 -->\n <a x="1">\n  <b\n    y = \'2\' z="x=9"/><c/>\r\n<d/></a>\n', any_root)
    assert (root.name, root.attributes, root.location) == ("a", {"x": "1"}, Location(2, 2))
    b, c, d = root.children
    assert (b.name, b.location) == ("b", Location(3, 3))
    assert b.attributes == {"y": "2", "z": "x=9"}
    assert b.name_location("y") == Location(4, 5)
    assert b.value_location("y") == Location(4, 10)
    assert b.value_location("z") == Location(4, 16)
    assert (c.location, d.location) == (Location(4, 22), Location(5, 1))
    with pytest.raises(KeyError):
        b.name_location("x")


def test_read_columns_count_characters() -> None:
    root = read('<a><!-- \u00e9\u20ac\U0001f600 --><b x="1"/></a>', any_root)
    assert root.children[0].location == Location(1, 16)


def test_read_white_space_before_the_declaration_is_accepted() -> None:
    root = read(' \n  <?xml version="1.0"?><a>\n<b/></a>', any_root)
    assert root.location == Location(2, 24)
    assert root.children[0].location == Location(3, 1)


def test_read_named_dtd_is_not_fetched() -> None:
    root = read("<!DOCTYPE a PUBLIC \"-//X//Y\" 'http://192.0.2.1/[x].dtd'>\n<a/>", any_root)
    assert root.location == Location(2, 1)


def test_read_checks_the_root_before_later_markup() -> None:
    def refuse(element: Element) -> None:
        raise PolicyError("not mine", "", element.location)

    with pytest.raises(PolicyError, match="line 1, column 1: not mine"):
        read("<a/><a/><not closed", refuse)


@pytest.mark.parametrize(
    ("text", "line", "column", "fragment"),
    [
        ('<!DOCTYPE a [<!ENTITY b "c">]>\n<a/>', 1, 13, "the DOCTYPE has declarations between [ and ]"),
        ('<!-- [ -->\n<?p [?>\n<!DOCTYPE a SYSTEM "[" [ ]>\n<a/>', 3, 24, "the DOCTYPE has declarations"),
        ('\n<!DOCTYPE a\n[<!ATTLIST a x CDATA "1">]><a/>', 3, 1, "the DOCTYPE has declarations"),
        ("<a>&b;</a>", 1, 4, 'the entity "&b;" is not defined'),
        ("<a><!-- &c; --><b\n x='&lt;&b;'/></a>", 2, 9, 'the entity "&b;" is not defined'),
        # As soon as a DTD is named, an unread one might define it; expat then skips it, in attributes silently.
        ('<!DOCTYPE a SYSTEM "x">\n<a>&b;</a>', 2, 4, 'the entity "&b;" is not defined'),
        ('<!DOCTYPE a SYSTEM "x">\n<a\nx="1&b;2"/>', 3, 5, 'the entity "&b;" is not defined'),
        ("<!DOCTYPE a SYSTEM 'x'><a x='&amp;&#38;&#x26;&b;'/>", 1, 46, 'the entity "&b;"'),
        ("<a/>" + "<!-- &x; -->" + "<", 1, 17, 'something follows the root element: the text "<"'),
        ("<a>\n words </a>", 2, 2, 'the text "words" between elements'),
        ("<a><b/> &#65;</a>", 1, 9, 'the text "&#65;" between elements'),
        ("<a><![CDATA[ x ]]></a>", 1, 14, 'the text "x" between elements'),
        ('<?xml version="l.0"?><a/>', 1, 1, 'the XML version is "l.0", with a letter in place of the digit 1'),
        ('<?xml version="1.1"?><a/>', 1, 1, 'the XML version is "1.1"; write version="1.0"'),
        ("<a>" * 100, 1, 25, "elements nest deeper than 8"),
        # Expat skips a byte order mark, so behind one a DOCTYPE would be read that was not looked for.
        ("\ufeff<!DOCTYPE a [<!ENTITY b 'c'>]><a/>", 1, 1, "a second byte order mark"),
        ("\n \ufeff<a/>", 2, 2, "a second byte order mark"),
    ],
)
def test_read_refuses_with_place_and_reason(text: str, line: int, column: int, fragment: str) -> None:
    with pytest.raises(DocumentError) as caught:
        read(text, any_root)
    assert fragment in str(caught.value)
    assert (caught.value.line, caught.value.column) == (line, column)


def test_read_overlooked_internal_subset_is_still_refused() -> None:
    with pytest.raises(DocumentError, match="the DOCTYPE has declarations"):
        _Builder("<!DOCTYPE a [<!ENTITY b 'c'>]><a x='&b;'/>", START, any_root).build()


def test_read_predefined_references_are_accepted() -> None:
    root = read('<!DOCTYPE a SYSTEM "x"><a x="&amp;&lt;&gt;&quot;&apos;&#65;&#x42;"/>', any_root)
    assert root.attributes == {"x": "&<>\"'AB"}


def test_read_limits_of_depth_elements_and_attributes() -> None:
    read("<a>" * MAX_DEPTH + "</a>" * MAX_DEPTH, any_root)
    with pytest.raises(LimitError):
        read("<a>" * (MAX_DEPTH + 1) + "</a>" * (MAX_DEPTH + 1), any_root)
    read("<a>" + "<b/>" * (MAX_ELEMENTS - 1) + "</a>", any_root)
    with pytest.raises(LimitError, match="more than 20,000 elements"):
        read("<a>" + "<b/>" * MAX_ELEMENTS + "</a>", any_root)
    attributes = [f' a{n}=""' for n in range(MAX_ATTRIBUTES + 1)]
    read(f"<a{''.join(attributes[1:])}/>", any_root)
    with pytest.raises(LimitError, match="more than 16 attributes"):
        read(f"<a{''.join(attributes)}/>", any_root)


ROOT = "<cross-domain-policy>%s</cross-domain-policy>"
GRANT = '<allow-access-from domain="%s" to-ports="%s"/>'

HOSTILE = {
    "billion laughs": "<!DOCTYPE a ["
    + '<!ENTITY l0 "lol">'
    + "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 12))
    + f"]>{ROOT % '&l11;'}",
    "entity chain": "<!DOCTYPE a ["
    + "".join(f'<!ENTITY a{n + 1} "&a{n};">' for n in range(30_000))
    + f"]>{ROOT % '&a30000;'}",
    "external entity": f'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>{ROOT % "&x;"}',
    "deep": ROOT % ("<a>" * 300_000),
    "opened": "<" * 1_000_000,
    "comments": "<!---->" * 140_000,
    "instructions": "<?a?>" * 200_000,
    "unclosed comments": "<!--" * 250_000,
    "quotes in the doctype": "<!DOCTYPE " + "\"'" * 500_000,
    "attributes": "<cross-domain-policy" + "".join(f' a{n}=""' for n in range(90_000)) + "/>",
    "long tag": "<cross-domain-policy" + " " * 1_000_000 + "x='1'/>",
    "long value": f"<cross-domain-policy x='{'x' * 1_000_000}'/>",
    "elements": ROOT % ("<a/>" * 250_000),
    "references": ROOT % (GRANT % ("*", "&#49;" * 200_000)),
    "ports": ROOT % (GRANT % ("*", "1," * 500_000)),
    "labels": ROOT % (GRANT % ("a." * 500_000, "*")),
    "numbers": ROOT % (GRANT % ("1." * 500_000 + "1", "*")),
    "encodings": "<?xml " + "encoding " * 110_000,
    "lines": "\n" * 1_000_000 + "<",
    "nothing": "\0" * 1_000_000,
    "megabytes": "x" * 10_000_000,
}


@pytest.mark.parametrize("name", HOSTILE)
def test_parse_hostile_file_fails_in_proportion_to_its_size(name: str) -> None:
    data = HOSTILE[name].encode()
    begin = time.process_time()
    with pytest.raises(PolicyError) as caught:
        parse(data)
    assert time.process_time() - begin < BOUND
    assert len(str(caught.value)) < 300
    assert "\n" not in str(caught.value)


def test_parse_largest_policy_takes_time_in_proportion() -> None:
    data = ROOT % ("<!-- \u00e9 -->" + (GRANT % ("*", 80)) * 19_999)  # one line, with a character of two bytes
    begin = time.process_time()
    assert len(parse(data.encode()).grants) == 19_999
    assert time.process_time() - begin < BOUND


@examples(200)
@given(
    st.lists(st.sampled_from([" ", "\n", "<!-- [ -->", "<!---->", "<?p [?>", "<!-- <!DOCTYPE -->", "<?a?>"])),
    st.sampled_from(["", ' SYSTEM "["', " SYSTEM '>'", ' PUBLIC "" \'"\'']),
    st.sampled_from(["<!ENTITY e 'x'>", "<!ATTLIST a x CDATA 'x'>", ""]),
)
def test_read_any_prolog_refuses_an_internal_subset(prolog: list[str], identifier: str, subset: str) -> None:
    begin = "".join(prolog) + f"<!DOCTYPE a{identifier}"
    assert read(begin + "><a/>", any_root).attributes == {}
    with pytest.raises(DocumentError, match="the DOCTYPE has declarations"):
        read(f"{begin} [{subset}]><a/>", any_root)
