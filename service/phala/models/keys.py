"""Keys for encrypting environments, and lists of key management services."""

from service.phala.models.base import Model
from service.phala.models.kms import KmsInfo


class AppEnvKey(Model):
    """The X25519 key to encrypt an app's environment with, and the signature of its KMS: 32 and 65 bytes in hex."""

    public_key: str
    signature: str


class KmsList(Model):
    """One page of key management services."""

    items: tuple[KmsInfo, ...]
    total: int
    page: int
    page_size: int
    pages: int
