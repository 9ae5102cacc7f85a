"""A connection that needs a greenlet of its own: start, deadline, end.

This file is compiled by Cython as it stands, and works as well when it is not. A greenlet in which Python code has run
keeps a stack for the interpreter's frames, of which a page is touched: 4 KB. Compiled code has no such frames, so here
10,000 clients that do not read cost 4 KB each instead of 9. Hence nothing in Python is called while one waits, and
gevent's loop is used directly, as in `hub`: a gevent.Timeout would be a frame.
"""

import gevent
from gevent import get_hub, getcurrent

from flashpol._fastpath import ConnectionTable

WRITE = 2


class _Expired(BaseException):
    """Thrown by a conversation's timer into that conversation, which waits nowhere but below."""


def finish_reply(connection_table: ConnectionTable, fd: int, timeout: float) -> None:
    """Send the rest of a reply that the kernel took only in part, within `timeout` seconds, as the client reads it."""
    hub = get_hub()
    writable = hub.loop.io(fd, WRITE)
    deadline = hub.loop.timer(timeout)
    deadline.start(getcurrent().throw, _Expired)
    try:
        while not connection_table.send_more(fd):
            hub.wait(writable)
    except _Expired:
        connection_table.close_as(fd, "timeout")
    except gevent.Timeout:
        connection_table.close_as(fd, "shutdown")
        raise
    except gevent.GreenletExit:
        connection_table.close_as(fd, "shutdown")
    except BaseException:
        connection_table.close_as(fd, "capacity")
        raise
    finally:
        for watcher in (writable, deadline):
            watcher.stop()
            watcher.close()
