"""The table of grants against a walk through all of them."""

from hypothesis import given
from hypothesis import strategies as st

from flashpol.policy.clients.grant_index import GrantIndex, Row
from flashpol.policy.clients.query import Content
from flashpol.policy.model import Location
from flashpol.policy.reader import Element
from testkit.examples import examples

HOSTS = ["a.b", "x.a.b", "b", "c"]
ELEMENT = Element("g", {"to-ports": "1"}, Location(1, 1), '<g to-ports="1"/>')
ports = st.integers(-3, 12)
rows = st.builds(
    Row,
    st.just(ELEMENT),
    st.sampled_from(["*", *HOSTS, *(f"*.{host}" for host in HOSTS)]),
    st.lists(st.tuples(ports, ports).map(lambda pair: (min(pair), max(pair))), max_size=3),
    st.booleans(),
)


def matches(row: Row, host: str) -> bool:
    if row.domain.startswith("*."):
        return ("." + host).endswith(row.domain[1:])
    return row.domain in ("*", host)


@given(st.lists(rows, max_size=8), st.sampled_from(HOSTS), ports, st.booleans())
@examples(500)
def test_grant_index_finds_the_first_matching_row(chosen: list[Row], host: str, port: int, https: bool) -> None:
    table, content = GrantIndex(chosen), Content.parse(host)
    walked = [
        row
        for row in chosen
        if matches(row, host) and (https or not row.secure) and any(low <= port <= high for low, high in row.ports)
    ]
    assert table.find(content, port, https=https) is (walked[0] if walked else None)
    near = [row for row in chosen if matches(row, host)]
    assert table.nearest(content) is (near[0] if near else None)


def test_row_looks_up_places_and_labels_once() -> None:
    row = Row(ELEMENT, "*", ())
    assert row.label == row.label == 'g to-ports="1"'
    assert row.at("to-ports") is row.at("to-ports")
    assert row.at("secure") == Location(1, 1)
