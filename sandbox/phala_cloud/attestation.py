"""What a running CVM proves about itself: measurements, and an event log that replays to them.

Digest of a runtime event (dstack, cc-eventlog): sha384(event type as 4 little-endian bytes, `:`, name, `:`,
payload). RTMR3 starts as 48 zero bytes; each event makes it sha384(RTMR3, digest).
"""

import hashlib

from sandbox.phala_cloud import compose, kms, os_images
from sandbox.phala_cloud.errors import Json
from sandbox.phala_cloud.records import Cvm, Kms

_RUNTIME_EVENT = 0x08000001
_RTMR3 = 3


def attestation(cvm: Cvm, key_service: Kms) -> Json:
    """CvmAttestation of what runs, which after an update may differ from what is configured."""
    if cvm.running_compose is None:
        return {
            "name": cvm.name,
            "is_online": False,
            "is_public": True,
            "error": "The CVM is offline",
            "app_certificates": None,
            "tcb_info": None,
            "compose_file": None,
        }
    return {
        "name": cvm.name,
        "is_online": True,
        "is_public": True,
        "error": None,
        "app_certificates": [],
        "tcb_info": _tcb_info(cvm, cvm.running_compose, key_service),
        "compose_file": cvm.running_compose,
    }


def _tcb_info(cvm: Cvm, app_compose: str, key_service: Kms) -> Json:
    image = os_images.find(cvm.image) or os_images.DEFAULT
    events = [
        _event("system-preparing", ""),
        _event("app-id", cvm.app_id),
        _event("compose-hash", compose.hash_of(app_compose)),
        _event("instance-id", cvm.node_instance_id),
        _event("boot-mr-done", ""),
        _event("mr-kms", hashlib.sha256(kms.signer(key_service)).hexdigest()),
        _event("os-image-hash", image.os_image_hash),
        _event("key-provider", b'{"name":"kms"}'.hex()),
        _event("storage-fs", b"zfs".hex()),
        _event("system-ready", ""),
    ]
    return {
        "mrtd": _measurement(image, "mrtd"),
        "rtmr0": _measurement(image, "rtmr0"),
        "rtmr1": _measurement(image, "rtmr1"),
        "rtmr2": _measurement(image, "rtmr2"),
        "rtmr3": _replay(events),
        "rootfs_hash": image.os_image_hash,
        "app_compose": app_compose,
        "event_log": events,
    }


def _event(name: str, payload: str) -> Json:
    digest = hashlib.sha384(
        _RUNTIME_EVENT.to_bytes(4, "little") + b":" + name.encode() + b":" + bytes.fromhex(payload),
    )
    return {
        "imr": _RTMR3,
        "event_type": _RUNTIME_EVENT,
        "digest": digest.hexdigest(),
        "event": name,
        "event_payload": payload,
    }


def _replay(events: list[Json]) -> str:
    register = bytes(48)
    for event in events:
        register = hashlib.sha384(register + bytes.fromhex(event["digest"])).digest()
    return register.hex()


def _measurement(image: os_images.OsImage, register: str) -> str:
    return hashlib.sha384(f"{image.name} {register}".encode()).hexdigest()
