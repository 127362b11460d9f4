import json
from typing import Any

import pydantic
import pytest

from service.api.bodies import SubmitBody
from service.api.examples import SUBMIT_PATCH, SUBMIT_PREPARED
from service.api.patch import MOST_SOURCE_BYTES, PatchMembers, warnings_about

COMPOSE = "services:\n  web:\n    image: nginx:1.29\n"
ACCEPTED: dict[str, list[Any]] = {
    "docker_compose_file": [COMPOSE, COMPOSE + "# é"],
    "pre_launch_script": ["", "#!/bin/sh\nexit 0\n"],
    "allowed_envs": [[], ["A"], ["A", "B_2"]],
    "public_logs": [True, False],
    "public_sysinfo": [True, False],
    "public_tcbinfo": [True, False],
    "encrypted_env": ["00", "aAfF09"],
    "user_config": ["", '{"hostname": "a"}'],
    "gpus": [
        {"count": 1},
        {"count": 8, "product_name": "H200"},
        {"gpus": []},
        {"gpus": [{"slot": "0000:1a:00.0"}, {"slot": "1", "product_id": None}], "attach_mode": "listed"},
        {"gpus": [], "attach_mode": "all"},
    ],
    "vcpu": [1, 64],
    "memory": [1, 2048],
    "disk_size": [1, 20, 20480],
    "image": ["dstack-0.5.5"],
    "shutdown_timeout": [10, 1200],
    "allow_force_stop": [True, False],
}
REFUSED: dict[str, list[Any]] = {
    "docker_compose_file": ["", "a: [", "x: 1", COMPOSE + "\0", 1, "services: {a: {image: '" + "a" * 204_800 + "'}}"],
    "pre_launch_script": ["\0", 1, "a" * 204_801],
    "allowed_envs": ["A", [1], [""], ["\0"], ["A"] * 1001],
    "public_logs": ["true", 1],
    "public_sysinfo": ["false", 0],
    "public_tcbinfo": ["yes"],
    "encrypted_env": ["", "0", "0x00", "zz", "00\n", 0],
    "user_config": ["\0", {}],
    "gpus": [
        {},
        1,
        [],
        {"count": -1},
        {"count": "1"},
        {"count": True},
        {"count": 1, "gpus": []},
        {"gpus": [{}]},
        {"gpus": [{"slot": 1}]},
        {"gpus": [], "attach_mode": "some"},
        {"attach_mode": "all"},
        {"gpus": [{"slot": "1", "more": 1}]},
    ],
    "vcpu": [0, -1, 1.5, "2", True, 10**30],
    "memory": [0, -1, 1.5, "2048", 10**30],
    "disk_size": [0, -1, 0.5, "20", 10**30],
    "image": ["", "\0", 1, "a" * 201],
    "shutdown_timeout": [9, 1201, 10.5, "10"],
    "allow_force_stop": ["true", 1],
}


def members(table: dict[str, list[Any]]) -> list[Any]:
    return [
        pytest.param(name, value, id=f"{name}-{index}")
        for name, values in table.items()
        for index, value in enumerate(values)
    ]


def test_the_tables_name_every_member_of_a_patch():
    assert set(ACCEPTED) == set(REFUSED) == set(PatchMembers.__annotations__)


@pytest.mark.parametrize(("member", "value"), members(ACCEPTED))
def test_a_member_goes_through_unchanged(member: str, value: object):
    sent = json.loads(json.dumps({"cvm_id": "my-agent", "patch": {member: value}}))
    body = SubmitBody.model_validate(sent)
    assert body.patch == {member: value}
    assert json.dumps(body.patch) == json.dumps({member: value})


@pytest.mark.parametrize(("member", "value"), members(REFUSED))
def test_a_wrong_value_is_refused_at_its_place(member: str, value: object):
    with pytest.raises(pydantic.ValidationError) as refusal:
        SubmitBody.model_validate({"cvm_id": "my-agent", "patch": {member: value}})
    assert all(error["loc"][:2] == ("patch", member) for error in refusal.value.errors())


@pytest.mark.parametrize("member", ACCEPTED)
def test_null_is_no_value_of_a_member(member: str):
    with pytest.raises(pydantic.ValidationError):
        SubmitBody.model_validate({"cvm_id": "my-agent", "patch": {member: None}})


def test_the_size_limit_counts_bytes_of_both_sources():
    compose = "services: {a: {image: é}}\n"
    room = MOST_SOURCE_BYTES - len(compose.encode())
    assert len(compose.encode()) > len(compose)
    SubmitBody.model_validate({"patch": {"docker_compose_file": compose, "pre_launch_script": "#" * room}})
    with pytest.raises(pydantic.ValidationError, match="204801 bytes together"):
        SubmitBody.model_validate({"patch": {"docker_compose_file": compose, "pre_launch_script": "#" * (room + 1)}})


def test_an_empty_patch_is_refused():
    with pytest.raises(pydantic.ValidationError, match="at least one member"):
        SubmitBody.model_validate({"cvm_id": "my-agent", "patch": {}})


def test_members_on_which_the_sources_disagree_warn():
    assert warnings_about({"vcpu": 2, "memory": 1}) == []
    (disk,) = warnings_about({"disk_size": 20})
    assert "GB" in disk
    assert "MB" in disk
    assert len(warnings_about({"disk_size": 20, "gpus": {"count": 1}})) == 2


def prepared(**changes: object) -> dict[str, Any]:
    return {"prepared": {**SUBMIT_PREPARED["prepared"], **changes}}


HASH = "9f91439e3f3c2a5d8c0f6a1b7e4d2c9b8a7f6e5d4c3b2a190807f6e5d4c3b2a1"


@pytest.mark.parametrize("value", [HASH, "0x" + HASH, "0x" + HASH.upper()])
def test_hashes_are_normalised(value: str):
    body = SubmitBody.model_validate(prepared(compose_hash=value, device_id=value))
    assert body.prepared is not None
    assert body.prepared.compose_hash == body.prepared.device_id == "0x" + HASH


@pytest.mark.parametrize("member", ["compose_hash", "device_id"])
@pytest.mark.parametrize(
    ("value", "why"),
    [("0x" + HASH[1:], "has 63"), (HASH + "0", "has 65"), ("", "has 0"), (HASH[:-1] + "g", "other characters")],
)
def test_a_hash_of_another_length_says_how_many_digits_it_has(member: str, value: str, why: str):
    with pytest.raises(pydantic.ValidationError, match=why):
        SubmitBody.model_validate(prepared(**{member: value}))


APP = "0x5aAeb6053F3E94C9b9A09f33669435E7Ef1BeAed"


@pytest.mark.parametrize("value", [APP, APP.lower(), "0x" + APP[2:].upper(), APP[2:].lower(), APP[2:]])
def test_app_addresses_are_checksummed(value: str):
    body = SubmitBody.model_validate(prepared(app_id=value))
    assert body.prepared is not None
    assert body.prepared.app_id == APP


@pytest.mark.parametrize(("value", "why"), [(APP[:-1] + "D", "checksum"), (APP[:-1], "has 39"), ("app_1", "other")])
def test_a_wrong_app_address_is_refused(value: str, why: str):
    with pytest.raises(pydantic.ValidationError, match=why):
        SubmitBody.model_validate(prepared(app_id=value))


@pytest.mark.parametrize(
    "token", ["", "x", "7d3e9f520b1c4a8d9e6f5a4b3c2d1e0f", "7d3e9f52-0b1c-4a8d-9e6f-5a4b3c2d1e0f\n"]
)
def test_a_commit_token_is_a_uuid(token: str):
    with pytest.raises(pydantic.ValidationError, match="expected a UUID") as refusal:
        SubmitBody.model_validate(prepared(commit_token=token))
    assert not token or repr(token) not in str(refusal.value)


def test_what_the_tool_prints_besides_is_ignored():
    body = SubmitBody.model_validate(prepared(printed_tomorrow={"a": [1]}))
    assert body.prepared is not None


@pytest.mark.parametrize("member", ["success", "prepare_only"])
def test_an_update_that_was_applied_is_not_taken_for_a_prepared_one(member: str):
    with pytest.raises(pydantic.ValidationError, match="nothing waits for an approval"):
        SubmitBody.model_validate(prepared(**{member: False}))


@pytest.mark.parametrize("value", [SUBMIT_PATCH, SUBMIT_PREPARED], ids=["patch", "prepared"])
def test_nothing_secret_is_in_the_text_of_a_body(value: dict[str, Any]):
    sent = {**value, "patch": {"encrypted_env": "5ec7e7"}}
    text = repr(SubmitBody.model_validate(sent).prepared)
    assert SUBMIT_PREPARED["prepared"]["commit_token"] not in text
    assert "commit-update" not in text


@pytest.mark.parametrize(
    "cvm_id",
    ["my-agent", "cvm_Ab12", "app_" + "a" * 40, "a" * 40, APP, APP.lower(), "3f2b8c14-5a6d-4e7f-8a9b-0c1d2e3f4a5b"],
)
def test_every_form_of_a_cvm_id_is_accepted(cvm_id: str):
    assert SubmitBody.model_validate({"cvm_id": cvm_id, "patch": {"vcpu": 1}}).cvm_id == cvm_id


@pytest.mark.parametrize("cvm_id", ["", ".", "..", "a/b", "a b", "a\0", "-a", "a" * 129, APP[:-1] + "D", "é", 7])
def test_what_names_no_cvm_is_refused(cvm_id: object):
    with pytest.raises(pydantic.ValidationError):
        SubmitBody.model_validate({"cvm_id": cvm_id, "patch": {"vcpu": 1}})


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("title", ""),
        ("title", "a" * 201),
        ("title", "two\nlines"),
        ("title", "nul\0"),
        ("deadline_seconds", 59),
        ("deadline_seconds", 7_776_001),
        ("deadline_seconds", "60"),
        ("allow_without_approval", "true"),
        ("allow_without_approval", None),
        ("Title", "a"),
        ("reason", ""),
        ("reason", "a" * 2001),
        ("reason", "turned \u202e around"),
        ("reason", "\x1b[2J"),
        ("links", "https://ci.example"),
        ("links", ["https://ci.example"] * 11),
        ("links", ["https://ci.example/" + "a" * 1000]),
        *[
            ("links", [link])
            for link in (
                "http://ci.example",
                "javascript:alert(1)",
                "https://",
                "https://user:pass@ci.example/",
                "//ci.example",
                "https://ci.example/a b",
                'https://ci.example/"><script>',
                "https://ci.example/\n",
                "HTTPS://CI",
                "",
                "https://-/",
                "https://ci.example\\@evil.example/",
                "https://ci.example/é",
                None,
            )
        ],
        ("metadata", []),
        ("metadata", {f"key {number}": "" for number in range(51)}),
        ("metadata", {"": "a"}),
        ("metadata", {"k" * 41: "a"}),
        ("metadata", {"k[0]": "a"}),
        ("metadata", {"k\n": "a"}),
        ("metadata", {"k": "a" * 501}),
        ("metadata", {"k": 1}),
        ("metadata", {"k": None}),
        ("metadata", {"k": "nul\0"}),
        ("on_conflict", "replace"),
        ("on_conflict", None),
        ("commit_policy", "never"),
        ("not_before", "tomorrow"),
        ("not_before", "2026-07-01T09:30:00"),
        ("not_before", 1782898200),
        ("not_before", "0001-01-01T00:00:00+14:00"),
        ("not_before", "9999-12-31T23:59:59-14:00"),
    ],
)
def test_a_wrong_member_beside_the_patch_is_refused(member: str, value: object):
    with pytest.raises(pydantic.ValidationError):
        SubmitBody.model_validate({**SUBMIT_PATCH, member: value})
