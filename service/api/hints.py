"""What was probably meant by a member that is not known."""

import difflib
from typing import Final

from service.api.bodies import PreparedUpdateBody, SubmitBody
from service.api.patch import PatchMembers

_KNOWN: Final = sorted({*PatchMembers.__annotations__, *SubmitBody.model_fields, *PreparedUpdateBody.model_fields})
_HINTS: Final = {
    "listed": "whether a CVM is listed is set at Phala Cloud (PATCH /cvms/{id}/listed), it is not part of an update",
    "instance_type": "an update takes vcpu and memory instead",
    "os_image_name": "use image",
    "os_image": "use image",
    "compose": "use docker_compose_file",
    "compose_file": "use docker_compose_file",
    "docker_compose": "use docker_compose_file",
    "env": "use encrypted_env, with the names in allowed_envs",
    "envs": "use encrypted_env, with the names in allowed_envs",
    "env_keys": "use allowed_envs",
    "memory_mb": "use memory",
    "name": "an update cannot rename a CVM",
    "prepare_only": "the service always prepares first; leave it out",
    "prepareOnly": "the service always prepares first; leave it out",
    "commit_token": "give the whole output of `phala deploy --prepare-only --json` as prepared",
}


def hint(member: str) -> str:
    """One sentence for an unknown member."""
    if member in _HINTS:
        return f"unknown member: {_HINTS[member]}"
    close = difflib.get_close_matches(member[:100], _KNOWN, n=1)
    return f"unknown member: did you mean {close[0]}?" if close else "unknown member"
