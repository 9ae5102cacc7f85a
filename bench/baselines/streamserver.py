"""A simple policy server with gevent: a greenlet for each connection.

Usage: streamserver.py BACKLOG POLICY_FILE. Prints "port N" and serves until it is killed.
"""

import socket
import sys
from pathlib import Path

from gevent.server import StreamServer

REQUEST = b"<policy-file-request/>\0"
TIMEOUT = 3.0  # seconds for a read: cheaper than a gevent.Timeout for the whole request


def main() -> None:
    reply = Path(sys.argv[2]).read_bytes() + b"\0"

    def serve(connection: socket.socket, address: object) -> None:
        connection.settimeout(TIMEOUT)
        seen = connection.recv(256)
        while 0 < len(seen) < len(REQUEST) and (piece := connection.recv(256)):
            seen += piece
        if seen == REQUEST:
            connection.sendall(reply)

    server = StreamServer(("127.0.0.1", 0), serve, backlog=int(sys.argv[1]))
    server.start()
    print("port", server.server_port, flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
