"""A connection that needs a greenlet of its own: start, deadline, end."""

import gevent
from gevent.socket import wait_write

from flashpol._fastpath import Parker


def finish_reply(parker: Parker, fd: int, timeout: float) -> None:
    """Send the rest of a reply that the kernel took only in part, within `timeout` seconds, as the client reads it."""
    deadline = gevent.Timeout.start_new(timeout)
    try:
        while not parker.resume(fd):
            wait_write(fd)
    except gevent.Timeout as expired:
        parker.abandon(fd, "timeout" if expired is deadline else "shutdown")
        if expired is not deadline:
            raise
    except gevent.GreenletExit:
        parker.abandon(fd, "shutdown")
    except BaseException:
        parker.abandon(fd, "capacity")
        raise
    finally:
        deadline.close()
