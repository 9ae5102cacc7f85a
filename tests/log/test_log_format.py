"""A record is always one line; JSON is JSON, however much of it is cut."""

import json
import logging
import os
import sys
import time
from datetime import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashpol.log.format import LINE_BYTES, JsonFormatter, TextFormatter

anything = st.text(st.characters())  # surrogates too


def record(message: str, *args: object, failed: BaseException | None = None, **extra: object) -> logging.LogRecord:
    exc_info = (type(failed), failed, failed.__traceback__) if failed else None
    made = logging.LogRecord("flashpol", logging.WARNING, "file.py", 1, message, args, exc_info)
    vars(made).update(extra)
    return made


def failure(message: str, depth: int = 0) -> BaseException:
    try:
        raise ValueError(message) from (failure(message, depth - 1) if depth else None)
    except ValueError as error:
        return error


def as_json(made: logging.LogRecord) -> dict[str, object]:
    line = JsonFormatter("worker-3").format(made)
    assert len(line) < LINE_BYTES
    assert line.isascii()
    assert line.isprintable()
    found = json.loads(line, parse_constant=pytest.fail)
    assert {"time", "level", "process", "pid", "message"} <= found.keys()
    return found


def test_json_formatter_writes_the_fields() -> None:
    made = record("%s is %d", "port", 843, event="bound", listener="game", port=843, rate=None)
    found = as_json(made)
    assert datetime.fromisoformat(str(found.pop("time"))).timestamp() == pytest.approx(made.created, abs=0.001)
    assert found == {
        "level": "WARNING",
        "process": "worker-3",
        "pid": os.getpid(),
        "message": "port is 843",
        "event": "bound",
        "listener": "game",
        "port": 843,
    }


def test_json_time_is_rfc_3339_in_utc_with_milliseconds() -> None:
    made = record("x")
    made.created = 1_700_000_000.0
    assert as_json(made)["time"] == "2023-11-14T22:13:20.000Z"


def test_json_exception_is_one_field() -> None:
    found = as_json(record("failed", failed=failure("because")))
    assert str(found["exception"]).startswith("Traceback")
    assert str(found["exception"]).endswith("ValueError: because")


def test_json_fields_cannot_replace_the_fixed_keys() -> None:
    assert as_json(record("x", time=0, level=0, pid=0))["level"] == "WARNING"


def test_json_of_values_outside_json_is_their_text() -> None:
    loop: list[object] = []
    loop.append(loop)
    found = as_json(record("x", a=float("nan"), b=b"bytes", c={("k",): 1}, d=loop, e=[1, None, True, {"k": 0.5}]))
    assert found["a"] == "nan"
    assert found["b"] == "b'bytes'"
    assert found["e"] == [1, None, True, {"k": 0.5}]


@pytest.mark.parametrize("text", ["x", '"', "\u00e4", "\U0001f600", "\n"])
def test_json_too_long_cuts_the_message_and_keeps_the_names(text: str) -> None:
    found = as_json(record("%s", text * 10_000, event="said", listener="game"))
    assert (found["event"], found["listener"]) == ("said", "game")
    message = str(found["message"])
    assert message.endswith("…")
    assert message == text * (len(message) - 1) + "…"
    assert len(json.dumps(found)) > LINE_BYTES - 30, "no more is cut than must be"


def test_json_too_long_keeps_the_end_of_the_exception() -> None:
    found = as_json(record("m" * 1000, failed=failure("because", depth=100)))
    assert str(found["exception"]).startswith("…")
    assert str(found["exception"]).endswith("ValueError: because")
    assert found["message"] == "m" * 1000


def test_json_of_too_many_fields_keeps_the_fixed_keys() -> None:
    assert as_json(record("message", **{f"field_{n}": n for n in range(1000)}))["message"] == "message"


@given(anything, st.dictionaries(anything.map("x".__add__), anything | st.floats() | st.binary(), max_size=4))
def test_json_formatter_always_writes_one_line_of_json(text: str, fields: dict[str, object]) -> None:
    as_json(record("%s", text * 50, failed=failure(text), **fields))


@given(anything, st.integers(0, 400))
def test_text_formatter_always_writes_one_line(text: str, times: int) -> None:
    for failed in (None, failure(text, depth=times % 30)):
        line = TextFormatter("admin").format(record("%s", text * times, failed=failed))
        assert len(line.encode()) < LINE_BYTES
        assert line.isprintable()


def test_text_formatter_escapes_a_forged_line() -> None:
    line = TextFormatter("admin").format(record("%s", "x\n2026-01-01 00:00:00,000 arbiter[1] ERROR: down\x1b[2J\u2028"))
    assert line.endswith(r"WARNING: x\n2026-01-01 00:00:00,000 arbiter[1] ERROR: down\x1b[2J\u2028")


def test_text_formatter_folds_an_exception_and_keeps_its_end() -> None:
    line = TextFormatter("admin").format(record("m" * 10_000, failed=failure("because", depth=100)))
    assert f"admin[{os.getpid()}] WARNING: mmm" in line
    assert line.endswith(" | ValueError: because")


def test_json_of_a_plain_record_has_the_fixed_keys_only() -> None:
    assert set(as_json(record("x"))) == {"time", "level", "process", "pid", "message"}, sys.version


def test_text_time_is_local_with_its_offset_from_utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Kolkata")
    time.tzset()
    try:
        made = record("x")
        made.created = 1_700_000_000.25
        assert TextFormatter("arbiter").format(made).startswith("2023-11-15 03:43:20.250+05:30 arbiter[")
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    ("level", "priority"), [(logging.ERROR, "<3>"), (logging.WARNING, "<4>"), (logging.INFO, "<6>"), (15, "<6>")]
)
def test_journal_lines_begin_with_the_priority_and_have_no_time_in_text(level: int, priority: str) -> None:
    made = record("down")
    made.levelno, made.levelname = level, logging.getLevelName(level)
    text = TextFormatter("arbiter", journal=True).format(made)
    assert text == f"{priority}arbiter[{os.getpid()}] {made.levelname}: down"
    assert json.loads(JsonFormatter("arbiter", journal=True).format(made).removeprefix(priority))["message"] == "down"


@pytest.mark.parametrize("formatter", [TextFormatter, JsonFormatter])
def test_journal_line_with_its_priority_fits_line_bytes(formatter: type[TextFormatter | JsonFormatter]) -> None:
    line = formatter("arbiter", journal=True).format(record("m" * 10_000, failed=failure("because", depth=100)))
    assert LINE_BYTES - 30 < len(line.encode()) < LINE_BYTES
    assert line.startswith("<4>")
