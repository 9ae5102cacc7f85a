"""Slow replies: the greenlet that sends the rest of a reply to a client that reads slowly.

Cython compiles this file, and it also works uncompiled. A greenlet in which Python code has run keeps a stack for the
interpreter's frames and has touched a page of it: 4 KB. Compiled code has no such frames, so 10,000 clients that do not
read cost 4 KB each here instead of 9. Therefore no Python code is called while a greenlet waits, and gevent's loop is
used directly, as in `hub`: a gevent.Timeout would be a frame.
"""

import gevent
from gevent import get_hub, getcurrent

from flashpol._fastpath import ConnectionTable

WRITE = 2


class _Expired(BaseException):
    """The deadline's timer throws it into the greenlet, which waits only in `finish_reply`."""


def finish_reply(connection_table: ConnectionTable, fd: int, timeout: float) -> None:
    """Send the rest of a reply as the client reads it, and close `fd` as "timeout" after `timeout` seconds.

    When the greenlet is killed, it is closed as "shutdown". Another exception closes it as "capacity" and is raised.
    """
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
