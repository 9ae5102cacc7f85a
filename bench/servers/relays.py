"""Shared ports: servers that reply to policy requests and relay everything else to an application. One thread each.

HAProxy inspects as flashpol does: input that differs from the request at its first byte is relayed at once, other input
when it has 23 bytes.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from bench.servers.certificate import Certificate
from bench.servers.haproxy import REQUEST, configuration, lua, started
from bench.servers.ours import flashpol
from bench.servers.running import BACKLOG, Server, free_port, wait_for_reply, work_folder

# Sessions of one worker or thread: each takes two files, a process may usually have 20,000, and flashpol's leave
# an eighth of them to policy requests (`leaves_files`).
SESSIONS = 8_600
SPLICING = 2_000  # sessions of HAProxy when it splices: it needs pipes, which take files too
SHARED_PORT = """frontend shared
    bind 127.0.0.1:{port} backlog {backlog}
    timeout client 1h
    {options}
    tcp-request inspect-delay 1s
    tcp-request content use-service lua.policy if {{ req.payload(0,23) -m bin {request} }}
    tcp-request content accept if {{ req.len gt 0 }} !{{ req.payload(0,1) -m bin 3c }}
    tcp-request content accept if {{ req.len ge 23 }}
    default_backend application
backend application
    timeout server 1h
    {options}
    server application 127.0.0.1:{application}
"""


def flashpol_relay(
    cpu: int | None,
    applications: tuple[int, ...],
    *,
    workers: int = 1,
    certificate: Certificate | None = None,
    listener: str = "",
) -> AbstractContextManager[Server]:
    """One shared port in front of applications on these ports, which are used in turn.

    certificate: also for TLS. listener: more lines of the listener.
    """
    upstreams = ", ".join(f'"127.0.0.1:{port}"' for port in applications)
    return flashpol(
        cpu,
        workers=workers,
        settings=f"max_sessions = {SESSIONS}",
        listener=f"upstream = [{upstreams}]\n{listener}",
        certificate=certificate,
    )


@contextmanager
def haproxy_relay(cpu: int | None, application: int, *, splice: bool = False) -> Iterator[Server]:
    """A shared port by HAProxy. splice: it may move bytes from socket to socket in the kernel."""
    name, connections = ("HAProxy, splice-auto", SPLICING) if splice else ("HAProxy", SESSIONS)
    options = "option splice-auto" if splice else ""
    port = free_port()
    sections = SHARED_PORT.format(port=port, backlog=BACKLOG, request=REQUEST, application=application, options=options)
    with work_folder() as folder:
        text = configuration(sections, more=lua(folder), connections=connections)
        with started(text, folder, cpu) as process:
            seconds = wait_for_reply(name, process, port, folder)
            pid = process.pid
            yield Server(name, port, pid, folder / "expected", seconds, parent=pid, ports=(port,))
