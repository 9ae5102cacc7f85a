"""The law of the merge against brute force, its simplest form, its stability, its refusals, its comments."""

import itertools
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flashpol.policy import (
    Decider,
    DomainPattern,
    Grant,
    Location,
    MetaPolicy,
    Policy,
    PortSet,
    allow_policy,
    flash,
    parse,
    render,
)
from flashpol.policy.merge import Fragment, MergeError, allows, merge_files, merge_policies
from testkit.examples import examples

thorough = examples(300)

# Few enough to try all, near enough to each other to be covered, wider, narrower, equal.
HOSTS = ["com", "a.com", "b.a.com", "xa.com", "q.com", "q.a.com", "192.0.2.1", "q.net"]
PORTS = [1, 2, 3, 4, 5, 65535]
domains = st.sampled_from(["*", "*.com", "*.a.com", "a.com", "b.a.com", "xa.com", "com", "192.0.2.1"]).map(
    DomainPattern.parse
)
port = st.integers(1, 5)
port_sets = st.one_of(
    st.lists(st.tuples(port, port).map(sorted).map(tuple), min_size=1, max_size=3).map(
        lambda ranges: PortSet(tuple(ranges))
    ),
    st.sampled_from(
        [PortSet(any=True), PortSet(((1, 65535),)), PortSet(((1, 4),)), PortSet(((3, 30),)), PortSet(((5, 65535),))]
    ),
)
grants = st.builds(Grant, domains, port_sets, st.booleans())
metas = st.sampled_from([None, None, None, *MetaPolicy])
policies = st.builds(Policy, st.lists(grants, max_size=4).map(tuple), metas)
fragments = st.lists(policies, max_size=4).map(
    lambda chosen: [Fragment(f"{number}.xml", policy) for number, policy in enumerate(chosen)]
)


def grant(domain: str, to_ports: str, *, secure: bool = False) -> Grant:
    return Grant(DomainPattern.parse(domain), PortSet.parse(to_ports), secure)


def merged(*all_grants: Grant) -> tuple[Grant, ...]:
    """The merge of fragments with one grant each."""
    return merge_policies(Fragment(str(n), Policy((each,))) for n, each in enumerate(all_grants)).grants


def file(*lines: str) -> bytes:
    return "\n".join(["<cross-domain-policy>", *lines, "</cross-domain-policy>"]).encode()


def meta(text: str) -> str:
    return f'<site-control permitted-cross-domain-policies="{text}"/>'


class TestAllows:
    """The question itself, by examples that name their source."""

    @pytest.mark.parametrize(
        ("one", "host", "to", "https", "answer"),
        [
            (grant("*", "*"), "any.net", 1, False, True),
            (grant("*.a.com", "80"), "a.com", 80, False, True),  # Adobe: *.foo.com matches foo.com
            (grant("*.a.com", "80"), "xa.com", 80, False, False),
            (grant("a.com", "80-82"), "a.com", 82, False, True),
            (grant("a.com", "80-82"), "a.com", 83, False, False),
            (grant("a.com", "80", secure=True), "a.com", 80, False, False),  # only what came over HTTPS
            (grant("a.com", "80", secure=True), "a.com", 80, True, True),
            (grant("a.com", "80"), "a.com", 80, True, True),
        ],
    )
    def test_allows_by_one_grant(self, one: Grant, host: str, to: int, https: bool, answer: bool) -> None:
        assert allows(Policy((one,)), host, to, https=https) is answer

    def test_allows_none_forbids_its_own_file(self) -> None:
        assert not allows(Policy((grant("*", "*"),), MetaPolicy.NONE), "a.com", 80, https=True)


class TestLaw:
    @thorough
    @given(fragments)
    @example([Fragment("a", Policy((grant("*", "1"),))), Fragment("b", Policy((grant("a.com", "1", secure=True),)))])
    def test_merge_allows_exactly_what_a_fragment_allows(self, several: list[Fragment]) -> None:
        try:
            merge = merge_policies(several)
        except MergeError:
            return
        for host, to, https in itertools.product(HOSTS, PORTS, (False, True)):
            by_some = any(allows(each.policy, host, to, https=https) for each in several)
            assert allows(merge, host, to, https=https) == by_some, (host, to, https)

    @thorough
    @given(fragments)
    def test_merge_is_refused_exactly_if_site_controls_conflict(self, several: list[Fragment]) -> None:
        said = {each.policy.meta for each in several} - {None}
        silent = any(each.policy.grants and each.policy.meta is None for each in several)
        conflict = len(said) > 1 or (said == {MetaPolicy.NONE} and silent)
        try:
            merge = merge_policies(several)
        except MergeError:
            assert conflict
        else:
            assert not conflict
            assert merge.meta == next(iter(said), None)

    @thorough
    @given(fragments, st.randoms())
    def test_merge_does_not_depend_on_order(self, several: list[Fragment], random: object) -> None:
        files = [(each.name, render(each.policy)) for each in several]
        shuffled = list(files)
        random.shuffle(shuffled)  # type: ignore[attr-defined]
        for provenance in (False, True):
            assert outcome(files, provenance) == outcome(shuffled, provenance)

    @thorough
    @given(fragments)
    def test_merge_of_a_merge_is_the_same(self, several: list[Fragment]) -> None:
        try:
            merge = merge_policies(several)
        except MergeError:
            return
        assert merge_policies([Fragment("once", merge)]) == merge
        assert merge_policies([Fragment("once", merge), Fragment("twice", merge)]) == merge

    @thorough
    @given(fragments)
    def test_merge_provenance_changes_only_comments(self, several: list[Fragment]) -> None:
        files = [(each.name, render(each.policy)) for each in several]
        plain, commented = outcome(files, False), outcome(files, True)
        if isinstance(plain, str):
            assert plain == commented
        else:
            assert parse(commented) == parse(plain)


def outcome(files: list[tuple[str, bytes]], provenance: bool) -> bytes | str:
    try:
        return merge_files(files, provenance=provenance)
    except MergeError as error:
        return str(error)


class TestSimplest:
    @pytest.mark.parametrize(
        ("given", "kept"),
        [
            ([], []),
            ([grant("a.com", "80"), grant("a.com", "81,90")], [grant("a.com", "80-81,90")]),
            ([grant("a.com", "80"), grant("a.com", "*")], [grant("a.com", "*")]),
            ([grant("a.com", "80"), grant("*.a.com", "80")], [grant("*.a.com", "80")]),
            ([grant("a.com", "80-81"), grant("*.a.com", "80")], [grant("*.a.com", "80"), grant("a.com", "80-81")]),
            # covered by two together
            (
                [grant("a.com", "80-81"), grant("*.a.com", "80"), grant("*", "81")],
                [grant("*", "81"), grant("*.a.com", "80")],
            ),
            # covered by one that is covered in part
            ([grant("a.com", "80"), grant("*.a.com", "80"), grant("*", "80")], [grant("*", "80")]),
            # secure asks for more, so it grants less
            ([grant("a.com", "80", secure=True), grant("a.com", "80")], [grant("a.com", "80")]),
            (
                [grant("a.com", "80", secure=True), grant("a.com", "81")],
                [grant("a.com", "81"), grant("a.com", "80", secure=True)],
            ),
            (
                [grant("*", "80", secure=True), grant("a.com", "80")],
                [grant("*", "80", secure=True), grant("a.com", "80")],
            ),
            ([grant("*", "80", secure=True), grant("a.com", "80", secure=True)], [grant("*", "80", secure=True)]),
            # an address is covered by everybody only
            ([grant("192.0.2.1", "80"), grant("*", "80")], [grant("*", "80")]),
            ([grant("192.0.2.1", "80"), grant("*.com", "80")], [grant("192.0.2.1", "80"), grant("*.com", "80")]),
            # the same ports, but clients that misread ranges know "*"
            ([grant("a.com", "*"), grant("*", "1-65535")], [grant("*", "1-65535"), grant("a.com", "*")]),
            ([grant("a.com", "1-65535"), grant("*", "*")], [grant("*", "*")]),
            # Lightspark reads the first port of a range, Unity not the last: see test_merge_clients.py
            ([grant("a.com", "1-100"), grant("a.com", "101-65535")],) * 2,
            (
                [grant("a.com", "80-180,300"), grant("a.com", "80-90,95-190"), grant("a.com", "80-170")],
                [grant("a.com", "80-180,300"), grant("a.com", "81-90,95-190")],
            ),
            ([grant("a.com", "1-16"), grant("a.com", "17-20")], [grant("a.com", "1-16"), grant("a.com", "17-20")]),
            ([grant("a.com", "82-84"), grant("*", "1-65535")],) * 2,
            ([grant("a.com", "82-84"), grant("*", "80-90")], [grant("*", "80-90")]),
            (
                [grant("a.com", "82-184"), grant("*", "82-90"), grant("*.com", "91-184")],
                [grant("*", "82-90"), grant("*.com", "91-184")],
            ),
            ([grant("*", "82-184", secure=True), grant("*", "82-150"), grant("*", "151-300")],) * 2,
            ([grant("a.com", "1-17"), grant("a.com", "2"), grant("*", "2")], [grant("a.com", "1-17"), grant("*", "2")]),
            ([grant("a.com", "82-184"), grant("*.com", "82-185")], [grant("*.com", "82-185")]),
        ],
    )
    def test_merge_writes_the_fewest_grants(self, given: list[Grant], kept: list[Grant]) -> None:
        assert set(merged(*given)) == set(kept)
        assert len(merged(*given)) == len(kept)

    def test_merge_sorts_by_domain_from_the_last_label(self) -> None:
        names = ["b.com", "*.com", "*", "com", "a.net", "z.a.com", "10.0.0.1"]
        kept = merged(*(grant(name, str(80 + n)) for n, name in enumerate(names)))
        assert [str(each.domain) for each in kept] == ["*", "10.0.0.1", "*.com", "com", "z.a.com", "b.com", "a.net"]

    def test_merge_of_10_000_different_grants(self) -> None:
        several = [grant(f"h{n}.d{n % 100}.example.com", f"{n + 1}") for n in range(10_000)]
        wide = [grant("*.example.com", ",".join(str(n) for n in range(2, 5000, 2)))]
        assert len(merged(*several, *wide)) == 10_000 - 2499 + 1


class TestRefusals:
    def refused(self, *files: tuple[str, bytes]) -> str:
        with pytest.raises(MergeError) as caught:
            merge_files(files)
        assert str(caught.value).isprintable()
        return str(caught.value)

    def test_merge_conflicting_site_controls_name_both_places(self) -> None:
        a, b = file(meta("master-only")), file("<!-- -->" + meta("all"))
        expected = (
            'site-control at b.xml:2:9 says "all", but site-control at a.xml:2:1 says "master-only"; '
            "write the same in both, or remove it from one"
        )
        assert self.refused(("a.xml", a), ("b.xml", b)) == expected
        assert self.refused(("b.xml", b), ("a.xml", a)) == expected

    def test_merge_none_with_grants_of_others_is_refused(self) -> None:
        some = file("", '<allow-access-from domain="*" to-ports="80"/>')
        assert self.refused(("a.xml", some), ("b.xml", file(meta("none")))) == (
            'site-control at b.xml:2:1 says "none", which would forbid the grants of a.xml:3:1; remove one of the two'
        )

    def test_merge_none_with_no_grants_of_others_is_accepted(self) -> None:
        own = file(meta("none"), '<allow-access-from domain="*" to-ports="80"/>')
        merge = parse(merge_files([("a", own), ("b", file()), ("c", file(meta("none")))]))
        assert merge == Policy((grant("*", "80"),), MetaPolicy.NONE)

    @pytest.mark.parametrize(
        ("data", "words"),
        [
            (b"", "b.xml:1:1: the policy is empty"),
            (file("<x/>"), "b.xml:2:1: <x> is not known"),
            (b"<access-policy/>", "b.xml:1:1: this is a Silverlight policy; only Flash policies are merged; write one"),
            (b" " * 2_000_000, "b.xml: the policy has 2,000,000 bytes"),
        ],
    )
    def test_merge_invalid_fragment_is_named_with_place(self, data: bytes, words: str) -> None:
        assert self.refused(("a.xml", file()), ("b.xml", data), ("c.xml", b"")).startswith(words)

    def test_merge_error_with_any_name_is_one_line(self) -> None:
        assert self.refused(("a\n\x1b[31m.xml", b"")).startswith("a\\n\\x1b[31m.xml:1:1: ")

    def test_merge_above_the_limits_of_a_file_is_refused(self) -> None:
        name = ".".join(["x" * 60] * 3)
        files = [
            (str(n), render(Policy(tuple(grant(f"h{n}-{m}.{name}", "80") for m in range(1500))))) for n in range(3)
        ]
        assert all(len(data) < 2**20 for _, data in files)
        assert self.refused(*files).startswith("the merge is too large: the policy has 1,")


class TestProvenance:
    def test_provenance_names_all_places(self) -> None:
        a = file(meta("all"), '<allow-access-from domain="*.a.com" to-ports="80,81"/>')
        b = file('<allow-access-from domain="b.a.com" to-ports="81" secure="true"/>')
        c = file(meta("all"), '<allow-access-from domain="*.a.com" to-ports="90"/>')
        assert merge_files([("c.xml", c), ("b.xml", b), ("a.xml", a)], provenance=True).decode().splitlines() == [
            '<?xml version="1.0"?>',
            "<cross-domain-policy>",
            "<!-- a.xml:2:1, c.xml:2:1 -->",
            '<site-control permitted-cross-domain-policies="all"/>',
            "<!-- a.xml:3:1, c.xml:3:1; covers b.xml:2:1 -->",
            '<allow-access-from domain="*.a.com" to-ports="80,81,90"/>',
            "</cross-domain-policy>",
        ]

    def test_provenance_of_equal_files(self) -> None:
        one, other = (file(*blank, '<allow-access-from domain="*" to-ports="1"/>') for blank in ([], [""]))
        forth = merge_files([("-", one), ("-", other)], provenance=True)
        assert b"<!-- -:3:1, -:2:1 -->" in forth or b"<!-- -:2:1, -:3:1 -->" in forth
        assert forth == merge_files([("-", other), ("-", one)], provenance=True)

    def test_provenance_mentions_every_grant(self) -> None:
        several = [grant("*", "1"), grant("*.com", "2"), grant("a.com", "1-2", secure=True), grant("b.net", "1")]
        files = [(f"{n}.xml", render(Policy((each,)))) for n, each in enumerate(several)]
        data = merge_files(files, provenance=True).decode()
        assert all(name in data for name, _ in files)

    @thorough
    @given(st.text(), st.sampled_from(["", "--", "---", "-", "-->", "--!>", "<!--", "\0", "\ud800", "&", "]]>"]))
    def test_provenance_with_any_name_is_a_valid_comment(self, name: str, end: str) -> None:
        data = merge_files([(name + end, file(meta("all")))], provenance=True)
        assert parse(data) == Policy(meta=MetaPolicy.ALL)
        assert len(data.splitlines()) == 5
        assert data.isascii()
        ElementTree.fromstring(data)


def test_fragment_without_places_is_called_by_its_name() -> None:
    fragment = Fragment("made", Policy())
    assert fragment.place(None) == "made"
    assert fragment.place(Location(3, 4)) == "made:3:4"


def test_merge_files_writes_what_render_writes() -> None:
    assert merge_files([]) == render(Policy())
    assert flash.compile_reply(merge_files([("a", file())])) == render(Policy()) + b"\0"


@pytest.mark.parametrize(
    "ports", ["18000-20000,19000", "8000-8100,8050,8100", "1-65535,80", "10-20,500-600,550,7000-7100,7050"]
)
def test_merge_and_grants_keep_single_ports_beside_a_range(ports: str) -> None:
    allowed = allow_policy([f"*.a.com:{ports}"])
    assert f'to-ports="{ports}"' in render(allowed).decode() or ports.startswith("10-20")
    merged = merge_files([("a", render(allowed)), ("b", file())])
    for policy in (render(allowed), merged):
        decider = Decider(policy, ["lightspark"])
        for port in (int(item) for item in ports.split(",") if "-" not in item):
            assert decider.decide("http://www.a.com/", port)[0].allowed


def test_merge_keeps_a_single_port_that_another_file_lists_beside_a_range() -> None:
    ranges, single = (render(allow_policy([f"*.a.com:{ports}"])) for ports in ("18000-20000", "19000"))
    for files in ([("a", ranges), ("b", single)], [("a", merge_files([("a", ranges), ("b", single)]))]):
        assert Decider(merge_files(files), ["lightspark"]).decide("http://a.com/", 19000)[0].allowed
