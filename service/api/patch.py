"""Every member of Phala Cloud's ``PATCH /cvms/{id}``, typed as its API and SDK (0.2.9) document them."""

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, NotRequired

from pydantic import AfterValidator, ConfigDict, Discriminator, Field, StringConstraints, Tag, with_config
from typing_extensions import TypedDict

from service.api.compose_file import check_compose
from service.api.fields import NO_NUL, EncryptedEnv, Text

MOST_SOURCE_BYTES: Final = 204_800
"""UTF-8 bytes of ``docker_compose_file`` and ``pre_launch_script`` together, as Phala Cloud's SDK checks them."""

_STRICT = ConfigDict(extra="forbid", strict=True)

Source = Annotated[str, StringConstraints(pattern=NO_NUL, max_length=MOST_SOURCE_BYTES)]
PositiveInt = Annotated[int, Field(gt=0, le=2**31 - 1)]


@with_config(_STRICT)
class GpuCount(TypedDict):
    """GPUs as the SDK describes them."""

    count: Annotated[int, Field(ge=0, le=2**31 - 1)]
    product_name: NotRequired[Text]


@with_config(_STRICT)
class GpuSlot(TypedDict):
    """One GPU of the API's own form."""

    slot: Text
    product_id: NotRequired[Text | None]


@with_config(_STRICT)
class GpuSlots(TypedDict):
    """GPUs as the API's description has them."""

    gpus: Annotated[list[GpuSlot], Field(max_length=64)]
    attach_mode: NotRequired[Literal["listed", "all"]]


def _gpu_form(value: object) -> str:
    return "slots" if isinstance(value, Mapping) and ("gpus" in value or "attach_mode" in value) else "count"


Gpus = Annotated[Annotated[GpuCount, Tag("count")] | Annotated[GpuSlots, Tag("slots")], Discriminator(_gpu_form)]


@with_config(ConfigDict(extra="forbid", strict=True, title="Patch"))
class PatchMembers(TypedDict, total=False):
    """What to change: at least one member. Members left out stay as they are."""

    docker_compose_file: Annotated[
        Source, AfterValidator(check_compose), Field(description="Docker Compose YAML; part of the compose hash")
    ]
    pre_launch_script: Annotated[Source, Field(description="Shell script; part of the compose hash")]
    allowed_envs: Annotated[
        list[Annotated[Text, StringConstraints(min_length=1, max_length=256)]],
        Field(max_length=1000, description="Names of environment variables; part of the compose hash"),
    ]
    public_logs: Annotated[bool, Field(description="Part of the compose hash")]
    public_sysinfo: Annotated[bool, Field(description="Part of the compose hash")]
    public_tcbinfo: Annotated[bool, Field(description="Part of the compose hash")]
    encrypted_env: Annotated[EncryptedEnv, Field(description="Ciphertext for the CVM, hex; lands with the commit")]
    user_config: Text
    gpus: Annotated[Gpus, Field(description="Either documented form; passed on unchanged, with a warning")]
    vcpu: PositiveInt
    memory: Annotated[PositiveInt, Field(description="MB")]
    disk_size: Annotated[
        PositiveInt, Field(description="Passed on unchanged, with a warning: sources disagree on GB or MB")
    ]
    image: Annotated[
        Text, StringConstraints(min_length=1, max_length=200), Field(description="Name or slug of an OS image")
    ]
    shutdown_timeout: Annotated[int, Field(ge=10, le=1200, description="Seconds")]
    allow_force_stop: bool


def _check_whole(patch: PatchMembers) -> PatchMembers:
    if not patch:
        raise ValueError("give at least one member to change")
    sources = (patch.get("docker_compose_file", ""), patch.get("pre_launch_script", ""))
    size = sum(len(source.encode()) for source in sources)
    if size > MOST_SOURCE_BYTES:
        raise ValueError(
            f"docker_compose_file and pre_launch_script have {size} bytes together; "
            f"Phala Cloud takes {MOST_SOURCE_BYTES}"
        )
    return patch


Patch = Annotated[PatchMembers, AfterValidator(_check_whole)]

_WARNINGS: Final = {
    "disk_size": (
        "disk_size was passed on unchanged: Phala Cloud's SDK takes it as GB, its API description as MB. "
        "Check the size after the update."
    ),
    "gpus": (
        "gpus was passed on unchanged: Phala Cloud's SDK and API description disagree on its form. "
        "Check the GPUs after the update."
    ),
}


def warnings_about(patch: Mapping[str, Any]) -> list[str]:
    """What a person should know about members on which Phala Cloud's documents disagree."""
    return [text for member, text in _WARNINGS.items() if member in patch]
