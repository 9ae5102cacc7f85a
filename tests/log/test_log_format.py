"""A record is one line, whatever is in it; JSON is JSON, however much of it is cut."""

import json
import logging
import os
import sys
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


def test_json() -> None:
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


def test_the_time_is_rfc_3339_in_utc_with_milliseconds() -> None:
    made = record("x")
    made.created = 1_700_000_000.0
    assert as_json(made)["time"] == "2023-11-14T22:13:20.000Z"


def test_an_exception_is_one_field() -> None:
    found = as_json(record("failed", failed=failure("because")))
    assert str(found["exception"]).startswith("Traceback")
    assert str(found["exception"]).endswith("ValueError: because")


def test_fields_cannot_stand_in_for_the_keys_of_every_line() -> None:
    assert as_json(record("x", time=0, level=0, pid=0))["level"] == "WARNING"


def test_values_that_json_has_no_words_for() -> None:
    loop: list[object] = []
    loop.append(loop)
    found = as_json(record("x", a=float("nan"), b=b"bytes", c={("k",): 1}, d=loop, e=[1, None, True, {"k": 0.5}]))
    assert found["a"] == "nan"
    assert found["b"] == "b'bytes'"
    assert found["e"] == [1, None, True, {"k": 0.5}]


@pytest.mark.parametrize("text", ["x", '"', "\u00e4", "\U0001f600", "\n"])
def test_what_is_too_long_is_cut_and_the_names_stay(text: str) -> None:
    found = as_json(record("%s", text * 10_000, event="said", listener="game"))
    assert (found["event"], found["listener"]) == ("said", "game")
    message = str(found["message"])
    assert message.endswith("…")
    assert message == text * (len(message) - 1) + "…"
    assert len(json.dumps(found)) > LINE_BYTES - 30, "no more is cut than must be"


def test_of_an_exception_the_end_stays() -> None:
    found = as_json(record("m" * 1000, failed=failure("because", depth=100)))
    assert str(found["exception"]).startswith("…")
    assert str(found["exception"]).endswith("ValueError: because")
    assert found["message"] == "m" * 1000


def test_more_fields_than_a_line_holds() -> None:
    assert as_json(record("message", **{f"field_{n}": n for n in range(1000)}))["message"] == "message"


@given(anything, st.dictionaries(anything.map("x".__add__), anything | st.floats() | st.binary(), max_size=4))
def test_always_one_line_of_json(text: str, fields: dict[str, object]) -> None:
    as_json(record("%s", text * 50, failed=failure(text), **fields))


@given(anything, st.integers(0, 400))
def test_text_is_always_one_line(text: str, times: int) -> None:
    for failed in (None, failure(text, depth=times % 30)):
        line = TextFormatter("admin").format(record("%s", text * times, failed=failed))
        assert len(line.encode()) < LINE_BYTES
        assert line.isprintable()


def test_a_forged_line_stays_in_its_line() -> None:
    line = TextFormatter("admin").format(record("%s", "x\n2026-01-01 00:00:00,000 arbiter[1] ERROR: down\x1b[2J\u2028"))
    assert line.endswith(r"WARNING: x\n2026-01-01 00:00:00,000 arbiter[1] ERROR: down\x1b[2J\u2028")


def test_text_folds_an_exception_and_keeps_its_end() -> None:
    line = TextFormatter("admin").format(record("m" * 10_000, failed=failure("because", depth=100)))
    assert f"admin[{os.getpid()}] WARNING: mmm" in line
    assert line.endswith(" | ValueError: because")


def test_python_adds_no_attribute_of_its_own_as_a_field() -> None:
    assert set(as_json(record("x"))) == {"time", "level", "process", "pid", "message"}, sys.version
