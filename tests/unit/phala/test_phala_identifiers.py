from __future__ import annotations

import re
from typing import Any
from urllib.parse import unquote

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.phala.errors import InvalidArgument, PhalaError
from service.phala.identifiers import (
    compose_file_segment,
    cvm_segment,
    normalize_app_id,
    normalize_compose_hash,
    normalize_device_id,
    path,
)

UUID = "01234567-89AB-4def-8123-456789abcdef"
NOT_V4 = "01234567-89ab-1def-8123-456789abcdef"
HEX40 = "09cef33ca9c6e4f2b1d5a7c3e8f0b2a4d6e8f1C3"


@pytest.mark.parametrize(
    ("given_members", "segment"),
    [
        ({"id": "my-app"}, "my-app"),
        ({"id": UUID}, UUID.replace("-", "")),
        ({"id": UUID.replace("-", "")}, UUID.replace("-", "")),
        ({"id": NOT_V4}, NOT_V4),
        ({"id": HEX40}, f"app_{HEX40}"),
        ({"id": 17}, "17"),
        ({"uuid": UUID}, UUID.replace("-", "")),
        ({"app_id": HEX40}, f"app_{HEX40}"),
        ({"app_id": f"0x{HEX40}"}, f"0x{HEX40}"),
        ({"instance_id": HEX40}, f"app_{HEX40}"),
        ({"instance_id": f"instance_{HEX40}"}, f"instance_{HEX40}"),
        ({"name": "my-app"}, "my-app"),
        ({"id": "", "uuid": None, "name": "my-app"}, "my-app"),
        ({"name": "other-app", "app_id": HEX40, "id": "first"}, "first"),
        ({"id": "cvm_0123abcd"}, "cvm_0123abcd"),
    ],
)
def test_segments(given_members: dict[str, Any], segment: str):
    assert cvm_segment(given_members) == segment


@pytest.mark.parametrize(
    "given_members",
    [
        {},
        {"id": ""},
        {"id": None},
        {"id": True},
        {"id": 1.5},
        {"uuid": NOT_V4},
        {"uuid": "x"},
        {"name": "abcd"},
        {"name": "a" * 64},
        {"name": "1-app"},
        {"name": "my--app"},
        {"name": "my-app-"},
        {"name": "my_app"},
        {"name": "my-app\n"},
        {"cvm_id": "x"},
    ],
)
def test_no_cvm_is_meant(given_members: dict[str, Any]):
    with pytest.raises(InvalidArgument):
        cvm_segment(given_members)


@pytest.mark.parametrize(
    ("given_members", "segment"),
    [
        ({"id": HEX40}, HEX40),
        ({"id": UUID}, UUID),
        ({"uuid": UUID}, UUID),
        ({"app_id": HEX40}, f"app_{HEX40}"),
        ({"instance_id": HEX40}, f"instance_{HEX40}"),
    ],
)
def test_segments_of_the_compose_file_functions(given_members: dict[str, Any], segment: str):
    assert compose_file_segment(given_members) == segment


@pytest.mark.parametrize(
    "given_members",
    [
        {"name": "my-app"},
        {"uuid": NOT_V4},
        {"app_id": f"0x{HEX40}"},
        {"app_id": "app_" + HEX40[4:]},
        {"instance_id": "x"},
    ],
)
def test_the_compose_file_functions_are_stricter(given_members: dict[str, Any]):
    with pytest.raises(InvalidArgument):
        compose_file_segment(given_members)


@given(segment=st.text(st.characters(exclude_categories=()), min_size=1))
def test_a_segment_never_changes_the_target(segment: str):
    try:
        written = path("cvms", segment, "state")
    except InvalidArgument:
        assert segment in (".", "..") or re.search("[\ud800-\udfff]", segment)
        return
    url = httpx.URL("http://phala.test/api/v1" + written)
    assert url.raw_path.decode() == "/api/v1" + written
    assert (url.host, url.query, url.fragment) == ("phala.test", b"", "")
    parts = url.raw_path.decode().split("/")
    assert parts[:4] == ["", "api", "v1", "cvms"]
    assert [unquote(part) for part in parts[4:]] == [segment, "state"]


def test_hex_is_normalised_or_refused():
    assert normalize_compose_hash("0x" + "AB" * 32) == "ab" * 32
    assert normalize_device_id("cd" * 32) == "cd" * 32
    assert normalize_app_id("0X" + HEX40) == HEX40.lower()
    for bad in (
        "",
        "0x",
        "ab" * 31,
        "ab" * 33,
        "0x0x" + "ab" * 31,
        "g" * 64,
        "ab" * 31 + "\u0660\u0660",
        "ab" * 32 + "\n",
    ):
        with pytest.raises(PhalaError):
            normalize_compose_hash(bad)
