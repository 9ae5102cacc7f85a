"""What the kernel still holds: sockets by state and port, and TCP memory."""

import socket

from faults.kernel import FIN_WAIT_1, count, tcp_memory, unread_replies
from testkit.polling import eventually

# Port 8430 is 20EE.
LINES = """\
   0: 0100007F:20EE 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0
   1: 0100007F:20EE 0100107F:9C40 04 00002E7C:00000000 01:00000014 00000000     0        0 0 2 0 20 4 30 10 -1
   2: 0100007F:20EE 0100107F:9C41 01 00000000:00000000 00:00000000 00000000     0        0 9 2 0 20 4 30 10 -1
   3: 0100007F:20EF 0100107F:9C42 04 00002E7C:00000000 01:00000014 00000000     0        0 0 2 0 20 4 30 10 -1
""".splitlines()


def test_count_is_of_a_state_and_a_local_port() -> None:
    assert count(LINES, FIN_WAIT_1, 8430) == 1
    assert count(LINES, "0A", 8430) == 1
    assert count(LINES, FIN_WAIT_1, 8432) == 0
    assert count([""], FIN_WAIT_1, 8430) == 0


def test_unread_replies_are_closed_sockets_whose_client_does_not_read() -> None:
    with socket.socket() as listener, socket.socket() as client:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        client.connect(("127.0.0.1", port))
        server, _ = listener.accept()
        server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 17)
        server.sendall(bytes(20_000))
        assert unread_replies(port) == 0
        server.close()
        eventually(lambda: unread_replies(port) == 1, "the closed socket")
        assert tcp_memory() >= 0  # the kernel charges each CPU a MB at a time, so a few KB may not show
        client.close()  # with unread bytes: RST
        eventually(lambda: unread_replies(port) == 0, "the socket is gone")
