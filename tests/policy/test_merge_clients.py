"""The law of the merge for every client, bugs included, by asking each of them; and what the law cannot keep."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flashpol.policy import CLIENTS, Decider, DomainPattern, Grant, MetaPolicy, Policy, PortSet, parse, render
from flashpol.policy.merge import Fragment, MergeError, merge_files, merge_policies
from testkit.examples import examples

thorough = examples(150)

# Ports where ranges of up to 16 ports, which are listed singly, and longer ones begin, end, touch and overlap.
EDGES = [1, 2, 3, 16, 17, 18, 19, 32, 33, 34, 1023, 1024, 65534, 65535]
CONTENT = [f"{scheme}://{host}/" for scheme in ("http", "https") for host in ("a.com", "b.a.com", "192.0.2.1", "q.net")]
QUESTIONS = list(itertools.product(CONTENT, EDGES))

domains = st.sampled_from(["*", "*.com", "*.a.com", "a.com", "192.0.2.1"]).map(DomainPattern.parse)
edge = st.sampled_from(EDGES)
port_sets = st.one_of(
    st.lists(st.tuples(edge, edge).map(sorted).map(tuple), min_size=1, max_size=3).map(lambda r: PortSet(tuple(r))),
    st.just(PortSet(any=True)),
)
grants = st.builds(Grant, domains, port_sets, st.booleans())
metas = st.sampled_from([None, None, None, *MetaPolicy])
policies = st.builds(Policy, st.lists(grants, max_size=3).map(tuple), metas)
fragments = st.lists(policies, min_size=1, max_size=3).map(
    lambda chosen: [Fragment(f"{number}.xml", policy) for number, policy in enumerate(chosen)]
)


def grant(domain: str, to_ports: str) -> Grant:
    return Grant(DomainPattern.parse(domain), PortSet.parse(to_ports))


def one_each(*texts: str) -> list[Fragment]:
    """Fragments with a grant each, written DOMAIN:PORTS."""
    return [Fragment(text, Policy((grant(*text.split(":")),))) for text in texts]


def allowed(data: bytes, client: str, served_from: int | None = None) -> set[tuple[str, int]]:
    """The QUESTIONS that a client answers with yes."""
    decider = Decider(data, [client])
    return {each for each in QUESTIONS if decider.decide(*each, served_from=served_from)[0].allowed}


def by_some(files: Iterable[bytes], client: str, served_from: int | None = None) -> set[tuple[str, int]]:
    return set().union(*(allowed(data, client, served_from) for data in files))


class TestLaw:
    @pytest.mark.parametrize("client", CLIENTS)
    @thorough
    @given(fragments)
    @example(one_each("a.com:16-18", "*:1-65535"))  # ranges: Lightspark reads only the first port of the second
    @example(one_each("*:1-34", "*:18-65535"))  # one range of both would lose 18 for Lightspark
    @example(one_each("*:1-18", "*:19-34"))  # of both, Unity would gain 18
    @example(one_each("*:1-16", "*:17-32"))  # two lists of single ports
    @example(one_each("*:2-17", "*:1-34"))
    @example(one_each("a.com:*", "*:1-65535"))
    def test_merge_each_client_allows_exactly_what_a_fragment_allows(
        self, client: str, several: list[Fragment]
    ) -> None:
        files = [render(each.policy) for each in several]
        try:
            merge = merge_files([(each.name, data) for each, data in zip(several, files, strict=True)])
        except MergeError:
            return
        assert allowed(merge, client) == by_some(files, client)

    @pytest.mark.parametrize("client", CLIENTS)
    @pytest.mark.parametrize("served_from", [1024, 5000])
    @examples(50)
    @given(st.lists(grants, max_size=4))
    def test_merge_off_port_843_keeps_the_law_without_site_control(
        self, client: str, served_from: int, several: list[Grant]
    ) -> None:
        files = [render(Policy((each,))) for each in several]
        merge = merge_files([("", data) for data in files])
        assert allowed(merge, client, served_from) == by_some(files, client, served_from)

    @thorough
    @given(st.lists(grants, max_size=6))
    def test_merge_grant_removed_denies_something(self, several: list[Grant]) -> None:
        """Neither for others of its domain nor for those of wider ones: a client would lose, were Unity one that
        looks at domains.
        """
        kept = merge_policies([Fragment("", Policy((each,))) for each in several]).grants
        for one in kept:
            same = [each for each in kept if each != one and (each.domain, each.secure) == (one.domain, one.secure)]
            for others in same, [each for each in kept if each != one and each not in same]:
                assert any(
                    answers(one, client, *question) and not any(answers(each, client, *question) for each in others)
                    for client in CLIENTS
                    for question in ALL_QUESTIONS
                )


ALL_QUESTIONS = [
    (host, https, to)
    for host in ("com", "a.com", "b.a.com", "q.com", "192.0.2.1", "q.net")
    for https in (False, True)
    for to in sorted({near for each in EDGES for near in (each - 1, each, each + 1) if 0 < near <= 65535})
]
_PORTS: dict[tuple[str, str], set[int]] = {}


def answers(one: Grant, client: str, host: str, https: bool, to: int) -> bool:
    """Ask a client for the port alone; the content is compared as all of them but Unity do."""
    key = str(one.ports), client
    if key not in _PORTS:
        decider = Decider(render(Policy((Grant(DomainPattern("", wildcard=True), one.ports),))), [client])
        _PORTS[key] = {each for _, _, each in ALL_QUESTIONS if decider.decide("http://x/", each)[0].allowed}
    return one.domain.matches(host) and (https or not one.secure) and to in _PORTS[key]


class TestWhatTheLawCannotKeep:
    """Each loss shown, so that the list of them in `merge` stays true."""

    def test_merge_too_large_for_unity_is_denied_by_it(self) -> None:
        files = [render(Policy((grant("*", "1"), *(grant(f"h{n}-{m}.a", "80") for m in range(40))))) for n in range(3)]
        merge = merge_files([(str(n), data) for n, data in enumerate(files)])
        assert len(merge) > 5000
        assert by_some(files, "unity")
        assert not allowed(merge, "unity")
        for client in ("flash", "lightspark"):
            assert allowed(merge, client) == by_some(files, client)

    def test_merge_of_4096_bytes_writes_ranges(self) -> None:
        """Written singly the ports would make a reply that Lightspark may hang on, and soon one too large for Unity."""
        files = [render(Policy(tuple(grant(f"h{n}-{m}.a", "1-16") for m in range(30)))) for n in range(2)]
        ours = [render(Policy((grant("*", "1-16"),))), *files]
        merge = merge_files([(str(n), data) for n, data in enumerate(ours)])
        assert allowed(merge, "lightspark") == by_some(ours, "lightspark")  # "*" covers the others
        ours = [render(Policy((grant("*", "2-17"),))), *files]
        merge = merge_files([(str(n), data) for n, data in enumerate(ours)])
        assert b'"2-17"' in merge
        assert by_some(ours, "lightspark") - allowed(merge, "lightspark") == {
            (content, to) for content in CONTENT for to in (3, 16, 17)
        }

    def test_merge_provenance_comments_count_as_size(self) -> None:
        data = render(Policy((grant("*", "1"),)))
        assert allowed(merge_files([("a" * 5000, data)]), "unity") == allowed(data, "unity")
        assert not allowed(merge_files([("a" * 5000, data)], provenance=True), "unity")

    def test_merge_of_a_fragment_too_large_by_itself_is_read(self) -> None:
        large = render(Policy((grant("*", "1"), *(grant(f"h{m}.a", "1") for m in range(100)))))
        merge = merge_files([("a", large)])
        assert not allowed(large, "unity")
        assert allowed(merge, "unity")

    def test_merge_with_site_control_off_port_843_is_denied_by_lightspark(self) -> None:
        silent, says = render(Policy((grant("*", "1"),))), render(Policy(meta=MetaPolicy.ALL))
        merge = merge_files([("a", silent), ("b", says)])
        assert allowed(merge, "lightspark", 5000) == set()
        assert by_some([silent, says], "lightspark", 5000)
        for client in CLIENTS:
            assert allowed(merge, client) == by_some([silent, says], client)

    @pytest.mark.parametrize(
        ("written", "lost", "gained"),
        [(",".join(map(str, range(16, 34))), {17, 18, 19, 32, 33}, set()), ("16-19", set(), {17, 18, 19})],
    )
    def test_merge_fragment_counts_as_render_writes_it(self, written: str, lost: set[int], gained: set[int]) -> None:
        data = (
            f'<cross-domain-policy><allow-access-from domain="*" to-ports="{written}"/></cross-domain-policy>'.encode()
        )
        before, after = allowed(data, "lightspark"), allowed(merge_files([("a", data)]), "lightspark")
        assert {to for _, to in before - after} == lost
        assert {to for _, to in after - before} == gained
        assert after == allowed(render(parse(data)), "lightspark")
