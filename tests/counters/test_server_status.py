"""The state of the server and of its last reload, in memory that all processes share."""

import os

from flashpol.counters.status import DRAINING, READY, STARTING, ServerStatus

LARGEST = 2**64 - 1


def test_server_status_new_is_starting_without_an_error() -> None:
    assert (ServerStatus().state, ServerStatus().reload_error) == (STARTING, "")
    assert len({STARTING, READY, DRAINING}) == 3


def test_server_status_fields_keep_what_was_written() -> None:
    status = ServerStatus()
    status.state, status.reload_successful, status.reload_timestamp = READY, 1, LARGEST
    status.reloads_asked, status.reloads_answered, status.reload_error = 5, 4, "grün ist falsch"
    assert (status.state, status.reload_successful, status.reload_timestamp) == (READY, 1, LARGEST)
    assert (status.reloads_asked, status.reloads_answered, status.reload_error) == (5, 4, "grün ist falsch")
    status.reload_error = "x" * 5000
    assert status.reload_error == "x" * ServerStatus.TEXT_BYTES
    status.reload_error = ""
    assert (status.reload_error, status.reloads_answered) == ("", 4)


def test_server_status_error_written_by_a_child_is_read_by_its_parent() -> None:
    status = ServerStatus()
    child = os.fork()
    if child == 0:
        status.reload_error = "line 3"
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    assert status.reload_error == "line 3"
