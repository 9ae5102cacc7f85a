"""Values: port sets and domain patterns against brute force, and what errors say."""

import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.policy import (
    DomainError,
    DomainPattern,
    Grant,
    Location,
    MetaPolicy,
    Policy,
    PolicyError,
    PortsError,
    PortSet,
)
from flashpol.policy.model import shown
from testkit.examples import examples

thorough = examples(200)


class TestPortSet:
    @pytest.mark.parametrize(
        ("text", "canonical"),
        [
            ("*", "*"),
            (" * ", "*"),
            ("80", "80"),
            ("1,65535", "1,65535"),
            ("1-65535", "1-65535"),
            ("80,81,82", "80-82"),
            ("80,81", "80-81"),
            ("80-80", "80"),
            ("8000-8100,1935", "1935,8000-8100"),
            ("80-90,85-95,96", "80-96"),
            ("80-90,85", "80-90"),
            (" 80 , 443 ", "80,443"),
            ("80,80", "80"),
        ],
    )
    def test_port_set_parse_accepts(self, text: str, canonical: str) -> None:
        assert str(PortSet.parse(text)) == canonical

    @pytest.mark.parametrize(
        ("text", "fragment"),
        [
            ("", "the port list is empty"),
            ("  ", "the port list is empty"),
            ("80,", 'an item of the port list "80," is empty; remove the extra comma'),
            (",80", "is empty"),
            ("80,,81", "is empty"),
            ("80 , , 81", "is empty"),
            ("0", 'there is no port "0"; write a port from 1 to 65535'),
            ("65536", 'there is no port "65536"'),
            ("1-70000", 'there is no port "70000"'),
            ("0-80", 'there is no port "0"'),
            ("9" * 5000, "there is no port"),
            ("81-80", 'the range 81-80 is reversed; write "80-81"'),
            ("080", 'the port "080" begins with a zero; write "80"'),
            ("*,80", '"*" is mixed with ports in "*,80"'),
            ("80,*", '"*" is mixed'),
            ("80-*", '"80-*" is neither a port nor a range'),
            ("-80", "neither"),
            ("80-", "neither"),
            ("80-81-82", "neither"),
            ("80 - 81", "neither"),
            ("80 81", "neither"),
            ("80;81", "neither"),
            ("80\n,81", "neither"),
            ("http", "neither"),
            ("+80", "neither"),
            ("1_0", "neither"),
            ("\u0668\u0660", "neither"),  # Arabic digits, which int() would read
            ("1," * 65535 + "1", "more than 65,535 items"),
        ],
    )
    def test_port_set_parse_refuses_with_reason(self, text: str, fragment: str) -> None:
        with pytest.raises(PortsError) as caught:
            PortSet.parse(text)
        assert fragment in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_port_set_from_ranges_is_normalised(self) -> None:
        assert PortSet(((90, 95), (80, 85), (86, 88))).ranges == ((80, 88), (90, 95))
        assert PortSet(any=True).ranges == ((1, 65535),)

    @pytest.mark.parametrize("ranges", [(), ((0, 5),), ((5, 65536),), ((5, 4),)])
    def test_port_set_from_invalid_ranges_raises(self, ranges: tuple[tuple[int, int], ...]) -> None:
        with pytest.raises(PortsError):
            PortSet(ranges)

    def test_port_set_star_differs_from_the_range_of_all_ports(self) -> None:
        # Lightspark reads the one and not the other.
        assert PortSet.parse("*") != PortSet.parse("1-65535")

    @pytest.mark.parametrize("text", ["*", "1-65535"])
    def test_port_set_limits_are_1_and_65535(self, text: str) -> None:
        ports = PortSet.parse(text)
        assert 1 in ports
        assert 65535 in ports
        assert 0 not in ports
        assert 65536 not in ports
        assert "80" not in ports

    def test_port_set_listed_writes_short_runs_singly(self) -> None:
        ports = PortSet.parse("80-82,100-110,1935")
        assert ports.listed(singly=3) == "80,81,82,100-110,1935"
        assert ports.listed(singly=2) == "80-82,100-110,1935"
        assert PortSet(any=True).listed(singly=3) == "*"

    @thorough
    @given(
        st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), min_size=1),
        st.sampled_from([",", ", ", " ,", " , "]),
    )
    def test_port_set_behaves_as_a_set_of_integers(self, items: list[tuple[int, int]], comma: str) -> None:
        text = comma.join(f"{low}-{low + more}" if more else str(low) for low, more in items)
        expected = {port for low, more in items for port in range(low, low + more + 1)}
        ports = PortSet.parse(text)
        assert {port for port in range(-1, 80) if port in ports} == expected
        assert PortSet.parse(str(ports)) == ports
        assert PortSet.parse(ports.listed(singly=4)) == ports
        # Canonical: the same ports in any spelling have the same ranges.
        assert PortSet(tuple((port, port) for port in expected)).ranges == ports.ranges
        # Single ports beside a long range that contains them are kept, except its first.
        alone = {low for low, more in items if not more}
        inside = {port for low, more in items if more for port in range(low, low + more + 1)}
        long = {port for low, high in ports.ranges if high - low >= 16 for port in range(low + 1, high + 1)}
        assert set(ports.singles) == alone & inside & long


class TestDomainPattern:
    @pytest.mark.parametrize(
        ("text", "canonical"),
        [
            ("*", "*"),
            ("example.com", "example.com"),
            ("Games.EXAMPLE.com", "games.example.com"),
            ("*.Example.com", "*.example.com"),
            ("*.com", "*.com"),
            ("localhost", "localhost"),
            ("192.0.2.1", "192.0.2.1"),
            ("0.0.0.255", "0.0.0.255"),
            ("3com.com", "3com.com"),
            ("my_game.example.com", "my_game.example.com"),
            ("xn--bcher-kva.example", "xn--bcher-kva.example"),
            ("a" * 63 + ".example", "a" * 63 + ".example"),
        ],
    )
    def test_domain_pattern_parse_accepts(self, text: str, canonical: str) -> None:
        assert str(DomainPattern.parse(text)) == canonical
        assert DomainPattern.parse(canonical) == DomainPattern.parse(text)

    @pytest.mark.parametrize(
        ("text", "fragment"),
        [
            ("", "the domain is empty"),
            ("*.", "a wildcard in a place that no client supports"),
            ("**", "a wildcard in a place that no client supports"),
            ("*example.com", "a wildcard in a place that no client supports"),
            ("www.q*.com", "a wildcard in a place that no client supports"),
            ("www.qq.*", "a wildcard in a place that no client supports"),
            ("*.*.com", "a wildcard in a place that no client supports"),
            ("10.0.0.*", "a wildcard in a place that no client supports"),
            ("*.0.0.1", '"*.0.0.1" has a wildcard in an IP address'),
            ("256.0.0.1", "is not an IPv4 address"),
            ("10.1", "is not an IPv4 address"),
            ("1.2.3.4.5", "is not an IPv4 address"),
            ("010.0.0.1", "is not an IPv4 address"),
            ("::1", "is an IPv6 address"),
            ("[::1]", "is an IPv6 address"),
            ("[::1]:80", "is an IPv6 address"),
            ("http://example.com", "is a URL; write only its host name"),
            ("example.com/", "is a URL"),
            ("example.com:80", "contains a port; write ports in to-ports"),
            ("example..com", "is not a host name"),
            (".example.com", "is not a host name"),
            ("example.com.", "is not a host name"),
            ("*..com", "is not a host name"),
            ("-a.com", "is not a host name"),
            ("a-.com", "is not a host name"),
            ("a b.com", "is not a host name"),
            ("a,b.com", "is not a host name"),
            ("a.com\n", "spaces around"),
            (" a.com", 'has spaces around it; write "a.com"'),
            ("a" * 64 + ".com", "is not a host name"),
            (".".join(["a" * 60] * 5), "is not a host name"),
            ("b\u00fccher.example", 'write the "xn--" form'),
            ("\u212a.com", "non-ASCII"),  # the Kelvin sign, whose lower case is k
        ],
    )
    def test_domain_pattern_parse_refuses_with_reason(self, text: str, fragment: str) -> None:
        with pytest.raises(DomainError) as caught:
            DomainPattern.parse(text)
        assert fragment in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_domain_pattern_from_constructor_is_validated(self) -> None:
        assert DomainPattern("Example.com", wildcard=True) == DomainPattern.parse("*.example.com")
        with pytest.raises(DomainError):
            DomainPattern('"/><evil')
        with pytest.raises(DomainError):
            DomainPattern("")

    @pytest.mark.parametrize(
        ("pattern", "host", "expected"),
        [
            ("*", "example.com", True),
            ("*", "192.0.2.1", True),
            ("*.foo.com", "foo.com", True),
            ("*.foo.com", "a.b.foo.com", True),
            ("*.foo.com", "A.Foo.COM", True),
            ("*.foo.com", "barfoo.com", False),
            ("*.foo.com", "foo.com.evil.example", False),
            ("foo.com", "FOO.com", True),
            ("foo.com", "www.foo.com", False),
            ("192.0.2.1", "192.0.2.1", True),
            ("192.0.2.1", "192.0.2.10", False),
            ("k.com", "\u212a.com", False),
        ],
    )
    def test_domain_pattern_matches_hosts(self, pattern: str, host: str, expected: bool) -> None:
        assert DomainPattern.parse(pattern).matches(host) is expected

    @thorough
    @given(st.data())
    def test_domain_pattern_matches_as_comparison_of_labels(self, data: st.DataObject) -> None:
        labels = st.lists(st.sampled_from(["a", "b", "ab", "com", "COM"]), min_size=1, max_size=4)
        suffix, host, wildcard = data.draw(labels), data.draw(labels), data.draw(st.booleans())
        pattern = DomainPattern.parse(("*." if wildcard else "") + ".".join(suffix))
        want, have = [label.lower() for label in suffix], [label.lower() for label in host]
        expected = have[-len(want) :] == want if wildcard else have == want
        assert pattern.matches(".".join(host)) is expected
        assert DomainPattern.parse(str(pattern)) == pattern


class TestErrors:
    def test_error_text_is_one_line_with_place_and_advice(self) -> None:
        error = PolicyError("this is wrong", "write that", Location(3, 5))
        assert str(error) == "line 3, column 5: this is wrong; write that"
        assert (error.line, error.column) == (3, 5)

    def test_error_text_without_place_or_advice(self) -> None:
        error = PolicyError("this is wrong")
        assert str(error) == "this is wrong"
        assert (error.line, error.column) == (None, None)

    def test_error_at_keeps_its_type(self) -> None:
        error = PortsError("wrong", "right").at(Location(1, 2))
        assert type(error) is PortsError
        assert str(error) == "line 1, column 2: wrong; right"

    def test_error_survives_pickling(self) -> None:
        error = pickle.loads(pickle.dumps(PortsError("wrong", "right", Location(1, 2))))
        assert type(error) is PortsError
        assert str(error) == "line 1, column 2: wrong; right"

    @pytest.mark.parametrize(
        ("text", "expected"),
        [
            ("plain", '"plain"'),
            ("a\nb\x1b[31m", '"a\\nb\\x1b[31m"'),
            ("right\u202eleft", '"right\\u202eleft"'),
            ("x" * 61, '"' + "x" * 57 + '..."'),
        ],
    )
    def test_shown_quotes_shortens_and_escapes(self, text: str, expected: str) -> None:
        assert shown(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", (2, 3)),
        ("ab", (2, 5)),
        ("a\nb", (3, 2)),
        ("a\r\nb", (3, 2)),
        ("a\rb", (3, 2)),
        ("\n\n", (4, 1)),
        ("\u00e9\t", (2, 5)),
    ],
)
def test_location_after_counts_lines_as_in_xml(text: str, expected: tuple[int, int]) -> None:
    assert Location(2, 3).after(text) == Location(*expected)


def test_comparison_ignores_places() -> None:
    domain, ports = DomainPattern.parse("*"), PortSet.parse("80")
    here, there = Grant(domain, ports, location=Location(1, 1)), Grant(domain, ports)
    assert here == there
    assert hash(here) == hash(there)
    assert Policy((here,), MetaPolicy.ALL, Location(2, 2)) == Policy((there,), MetaPolicy.ALL)
    assert Policy((here,)) != Policy((here,), MetaPolicy.ALL)  # unsaid is not the same as said
