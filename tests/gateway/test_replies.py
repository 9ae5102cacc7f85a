"""The HTTP replies, as httptools and h11 read them."""

import h11
import pytest

from flashpol import _fastpath
from flashpol.gateway import replies


def read(reply: bytes) -> tuple[h11.Response, bytes]:
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method="GET", target="/", headers=[("Host", "x")]))
    client.send(h11.EndOfMessage())
    client.receive_data(reply)
    response, body = client.next_event(), client.next_event()
    assert isinstance(response, h11.Response)
    assert isinstance(body, h11.Data)
    assert isinstance(client.next_event(), h11.EndOfMessage)
    assert client.their_state is h11.MUST_CLOSE
    return response, bytes(body.data)


@pytest.mark.parametrize("status", sorted(replies._TEXTS))
def test_reply_of_each_status_is_a_line_of_text(status: int) -> None:
    response, body = read(replies.reply(status))
    assert response.status_code == status
    assert body.endswith(b".\n")
    assert body.count(b"\n") == 1


def test_reply_has_the_text_and_the_fields_given() -> None:
    response, body = read(replies.reply(405, "no", {"Allow": "GET"}))
    assert (b"allow", b"GET") in response.headers
    assert body == b"no\n"


def test_replies_by_status_are_all_that_the_fast_path_sends() -> None:
    assert set(replies.BY_STATUS) == set(_fastpath.HTTP_STATUSES) - {None}
