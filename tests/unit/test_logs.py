import logging

from service.logs import WithExtras


def _line(**extra: object) -> str:
    record = logging.makeLogRecord({"name": "n", "levelname": "INFO", "msg": "took over %s", "args": ("it",), **extra})
    return WithExtras("%(levelname)s %(name)s %(message)s").format(record)


def test_a_line_shows_what_the_record_carries():
    assert _line(row="cr_1", chain_id=10) == "INFO n took over it chain_id='10' row='cr_1'"


def test_a_value_with_line_breaks_stays_on_the_line():
    assert _line(row="a\nERROR forged") == r"INFO n took over it row='a\nERROR forged'"


def test_a_plain_record_is_left_alone():
    assert _line() == "INFO n took over it"
