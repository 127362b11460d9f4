from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.phala import compose_hash
from tests.contract.phala.nodejs import run_node

pytestmark = pytest.mark.node

ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=12)
SPICY_TEXT = st.sampled_from(
    [
        '{"k": "v"}',
        'a: "b": c',
        "\u2028\u2029\ufeff\x7f",
        "\ud83d",
        "\ude00\ud83d",
        "😀",
        "ｱ",
        "</script>",
        "\r\n\t\b\f\x00\x1f",
        "",
    ]
)
TEXT = ANY_TEXT | SPICY_TEXT
INDEX_LIKE = st.sampled_from(["0", "00", "-1", "1.5", "4294967294", "4294967295", "9", "10", "1e3", " 1", "٣"])
REFUSED = ("constructor", "__proto__")
NAMES = (
    TEXT | INDEX_LIKE | st.sampled_from(["", "_", "A", "a", "aa", "ﬀ", "😀", "toString", "hasOwnProperty"])
).filter(lambda name: name not in REFUSED)
NUMBERS = (
    st.integers()
    | st.integers(-(10**25), 10**25)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from([0.0, -0.0, 1.0, 1e-6, 9.999e-7, 1e20, 1e21, 123456789012345680000.0, 5e-324, 2**53 + 1, 1.7e308])
)
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=5),
    max_leaves=12,
)
SCRIPTS = st.sampled_from(["", " ", None, False, 0, 0.0, [], {}, "#!/bin/sh\n", True])
DOCUMENTS = st.builds(
    lambda known, more: {**more, **known},
    st.fixed_dictionaries(
        {},
        optional={
            "runner": st.sampled_from(["docker-compose", "bash", "Bash", None, 1, ["bash"]]),
            "docker_compose_file": TEXT,
            "bash_script": TEXT | st.none(),
            "pre_launch_script": SCRIPTS,
            "name": TEXT,
            "manifest_version": st.sampled_from([2, 2.0, "2"]),
            "features": st.lists(TEXT, max_size=3),
            "allowed_envs": st.lists(TEXT, max_size=3),
            "salt": TEXT | st.none(),
        },
    ),
    st.dictionaries(NAMES, VALUES, max_size=4),
)
#: Texts that Python's own writer would not produce.
FOREIGN_TEXTS = [
    '{"a":1e400,"b":-1e400}',
    '{"a":1,"a":2}',
    '{"a":1.0E+2}',
    '{"n":' + "9" * 400 + "}",
    '{"a":-0,"b":"\\u00e9\\/"}',
]


def test_thousands_of_documents_hash_as_by_the_official_package():
    texts: dict[str, Any] = {}

    @settings(max_examples=2600, deadline=None, suppress_health_check=list(HealthCheck))
    @given(document=DOCUMENTS, ascii_only=st.booleans())
    def collect(document: dict[str, Any], *, ascii_only: bool) -> None:
        texts[json.dumps(document, ensure_ascii=ascii_only).encode("utf-16", "surrogatepass").hex()] = document

    collect()
    given_texts = [bytes.fromhex(key).decode("utf-16", "surrogatepass") for key in texts] + FOREIGN_TEXTS
    documents = list(texts.values()) + [None] * len(FOREIGN_TEXTS)
    assert len(given_texts) >= 2000
    theirs = run_node("sdk_hashes.mjs", given_texts)
    for text, document, expected in zip(given_texts, documents, theirs, strict=True):
        for form, digest in expected.items():
            assert compose_hash(text, form) == digest, (form, text)
            assert document is None or compose_hash(document, form) == digest, (form, document)
