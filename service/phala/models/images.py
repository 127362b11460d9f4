"""OS images."""

from service.phala.models.base import Model


class OsImageVariant(Model):
    """A production or development build. ``is_current``: the CVM runs it."""

    name: str
    slug: str | None = None
    os_image_hash: str | None = None
    is_current: bool = False


class AvailableOsImage(Model):
    """One version that a CVM can boot. ``version`` has three or four numbers."""

    version: tuple[int, ...]
    prod: OsImageVariant | None = None
    dev: OsImageVariant | None = None


class OsImage(Model):
    """One image of the whole list."""

    name: str
    slug: str | None = None
    version: str | None = None
    os_image_hash: str | None = None
    is_dev: bool = False
    requires_gpu: bool = False


class OsImages(Model):
    """One page of images."""

    items: tuple[OsImage, ...]
    total: int
    page: int
    page_size: int
    pages: int
