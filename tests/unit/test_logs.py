import json
import logging
import sys

from service.logs import JsonLines, WithExtras


def _line(**extra: object) -> str:
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": "took over %s", "args": ("it",), **extra})
    return WithExtras("%(levelname)s %(name)s %(message)s").format(record)


def test_a_line_shows_what_the_record_carries():
    assert _line(row="cr_1", chain_id=10) == "INFO n took over it chain_id='10' row='cr_1'"


def test_a_value_with_line_breaks_stays_on_the_line():
    assert _line(row="a\nERROR forged") == r"INFO n took over it row='a\nERROR forged'"


def test_a_plain_record_is_left_alone():
    assert _line() == "INFO n took over it"


def test_a_line_of_json_has_the_ids_of_the_record_as_members():
    extra = {"row": "cr_1", "request_id": "req_1", "chain_id": 10, "when": {1}}
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": "took %s", "args": ("a\nb",), **extra})

    line = JsonLines().format(record)

    assert "\n" not in line
    shown = json.loads(line)
    assert shown.pop("time").endswith("+00:00")
    assert shown == {
        "level": "INFO",
        "logger": "n",
        "message": "took a\nb",
        "change_request_id": "cr_1",
        "row": "cr_1",
        "request_id": "req_1",
        "chain_id": 10,
        "when": "{1}",
    }


def test_a_traceback_stays_on_the_line_and_nothing_given_hides_the_level():
    try:
        int("a\nb")
    except ValueError:
        record = logging.makeLogRecord(
            {"levelname": "ERROR", "msg": "m", "exc_info": sys.exc_info(), "level": "forged"}
        )
    line = JsonLines().format(record)
    assert "\n" not in line
    assert "ValueError" in json.loads(line)["traceback"]
    assert json.loads(line)["level"] == "ERROR"
