"""What a CVM proves about itself."""

import hashlib
from typing import Any

from service.phala.models.base import Model


class AttestationEvent(Model):
    """One entry of the measured event log. ``digest`` and ``event_payload`` are hex without 0x."""

    imr: int
    event_type: int
    digest: str = ""
    event: str = ""
    event_payload: str = ""


class TcbInfo(Model):
    """The measurements. ``app_compose`` is the measured document, byte for byte."""

    mrtd: str
    rtmr0: str
    rtmr1: str
    rtmr2: str
    rtmr3: str
    rootfs_hash: str | None = None
    app_compose: str
    event_log: tuple[AttestationEvent, ...] = ()

    @property
    def compose_hash(self) -> str | None:
        """Payload of the ``compose-hash`` event, lower-case hex without 0x; None if absent or contradicted."""
        payloads = {event.event_payload.lower() for event in self.event_log if event.event == "compose-hash"}
        return payloads.pop() if len(payloads) == 1 else None

    @property
    def app_compose_sha256(self) -> str:
        """sha256 of `app_compose` as received; equals `compose_hash` in an honest answer."""
        return hashlib.sha256(self.app_compose.encode()).hexdigest()


class CvmAttestation(Model):
    """An attestation; without ``tcb_info`` where the CVM is offline or keeps it private (``error`` may say why)."""

    name: str | None = None
    is_online: bool
    is_public: bool = True
    error: str | None = None
    app_certificates: tuple[dict[str, Any], ...] | None = None
    tcb_info: TcbInfo | None = None
    compose_file: str | None = None
