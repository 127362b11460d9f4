from __future__ import annotations

import copy
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from service.phala import canonical_app_compose, compose_hash
from service.phala.errors import InvalidArgument

DATA = json.loads((Path(__file__).parents[2] / "vectors" / "phala" / "compose_hash.json").read_text())
FORMS = {"compact": "compact", "normalized": "compact_normalized", "pretty": "pretty"}

#: The official tools hash these, hiding a member (``__proto__``) or leaving all unsorted (``constructor``). They are
#: refused here on purpose: what would be approved is not what the document says.
REFUSED = {"key_proto_object", "key_proto_scalar", "key_constructor_top"}

VECTORS = [pytest.param(vector, form, id=f"{vector['name']} {form}") for vector in DATA["vectors"] for form in FORMS]


def refused(vector: dict[str, Any]) -> bool:
    return vector["name"].removesuffix("__with_runner") in REFUSED


@pytest.mark.parametrize(("vector", "form"), [p for p in VECTORS if not refused(p.values[0])])
def test_text_and_hash_are_the_official_ones(vector: dict[str, Any], form: Any):
    expected = vector[FORMS[form]]
    assert canonical_app_compose(vector["input_json"], form) == expected["canonical"]
    assert compose_hash(vector["input_json"], form) == expected["sha256"]


@pytest.mark.parametrize(("vector", "form"), [p for p in VECTORS if refused(p.values[0])])
def test_treacherous_documents_are_refused(vector: dict[str, Any], form: Any):
    with pytest.raises(InvalidArgument, match=r"__proto__|constructor"):
        compose_hash(vector["input_json"], form)


def test_all_vectors_are_covered():
    assert len(DATA["vectors"]) == 86
    assert len([p for p in VECTORS if refused(p.values[0])]) == 3 * len(REFUSED) * 2


#: What the JavaScript-only inputs are in Python. Undefined and functions have no counterpart: Python's None is null.
JS_ONLY: dict[str, Any] = {
    "undefined_member": {"b": 1},
    "undefined_in_array": {"l": [None, 1]},
    "nan_infinity": {"a": float("nan"), "b": float("inf"), "c": [float("-inf")]},
    "negative_zero_js": {"a": -0.0},
    "function_member": {"a": 1},
}
#: No JSON here either. Python has no BigInt beside its numbers: a complex number stands in for it.
NOT_JSON: dict[str, Any] = {
    "date_value": {"d": datetime(1970, 1, 1, tzinfo=UTC), "a": 1},
    "null_prototype_object": {"x": object()},
    "bigint": {"a": 1j},
}


@pytest.mark.parametrize("vector", DATA["js_only_vectors"], ids=lambda vector: vector["name"])
@pytest.mark.parametrize("form", FORMS)
def test_values_only_javascript_has(vector: dict[str, Any], form: Any):
    if vector["name"] in NOT_JSON:
        with pytest.raises(InvalidArgument, match="no JSON value"):
            compose_hash(NOT_JSON[vector["name"]], form)
    else:
        assert canonical_app_compose(JS_ONLY[vector["name"]], form) == vector[FORMS[form]]["canonical"]


def test_a_dict_hashes_as_its_text_and_stays_as_it_was():
    document = {"runner": "docker-compose", "bash_script": "x", "pre_launch_script": "", "n": [1.0, 2**53 + 1, 1e-7]}
    before = copy.deepcopy(document)
    for form in FORMS:
        assert compose_hash(document, form) == compose_hash(json.dumps(document), form)  # type: ignore[arg-type] # a parameter
    assert document == before


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (1e-6, "0.000001"),
        (1.5e-7, "1.5e-7"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e21, "1e+21"),
        (1.25e22, "1.25e+22"),
        (-1e-7, "-1e-7"),
        (5e-324, "5e-324"),
        (1.7976931348623157e308, "1.7976931348623157e+308"),
        (10**400, "null"),
        (9007199254740993, "9007199254740992"),
        (True, "true"),
        (0.1 + 0.2, "0.30000000000000004"),
    ],
)
def test_numbers_print_as_in_javascript(value: Any, text: str):
    assert canonical_app_compose({"n": value}) == f'{{"n":{text}}}'


def test_two_halves_of_a_character_are_one():
    assert canonical_app_compose({"s": "\ud83d" + "\ude00"}) == '{"s":"😀"}'
    assert canonical_app_compose({"s": "\ude00\ud83d"}) == '{"s":"\\ude00\\ud83d"}'


def cycle() -> dict[str, Any]:
    document: dict[str, Any] = {}
    document["self"] = document
    return document


@pytest.mark.parametrize(
    "document",
    [
        "not json",
        "[1]",
        "null",
        '{"a":NaN}',
        '{"a":Infinity}',
        '\ufeff{"a":1}',
        '{"a":' + "[" * 100_000 + "]" * 100_000 + "}",
        cycle(),
        {"a": {1: 2}},
        {"a": {1, 2}},
        {"a": b"bytes"},
        {"x": {"y": [{"__proto__": 1}]}},
        {"x": [[{"constructor": {}}]]},
    ],
    ids=lambda document: repr(document)[:30],
)
def test_what_is_no_document_is_refused_in_words(document: Any):
    with pytest.raises(InvalidArgument):
        compose_hash(document)


def test_an_unknown_form_is_refused():
    with pytest.raises(InvalidArgument, match="form"):
        compose_hash({}, "loud")  # type: ignore[arg-type] # the point
