"""Key management services, and what a prepared update says about its own."""

from service.phala.models.base import Model


class KmsSummary(Model):
    """A KMS as far as an answer describes it. ``chain_id`` None means off-chain; addresses are 0x-prefixed."""

    id: str | None = None
    slug: str | None = None
    url: str | None = None
    version: str | None = None
    chain_id: int | None = None
    kms_contract_address: str | None = None
    gateway_app_id: str | None = None


class KmsInfo(KmsSummary):
    """A KMS in full: ``id`` is ``kms_...``, ``slug`` the readable name; either is accepted where a KMS is named."""

    id: str
    url: str
    version: str
