"""The OS images a CVM can run."""

import hashlib
from dataclasses import dataclass

from sandbox.phala_cloud.errors import Json


@dataclass(frozen=True)
class OsImage:
    """One image: production or development build of a version."""

    name: str
    version: tuple[int, ...]
    is_dev: bool

    @property
    def os_image_hash(self) -> str:
        """64 hex digits."""
        return hashlib.sha256(self.name.encode()).hexdigest()

    @property
    def slug(self) -> str:
        """The unique name for API calls."""
        return f"{self.name}-{self.os_image_hash[:8]}"

    @property
    def dotted(self) -> str:
        """The version as text."""
        return ".".join(map(str, self.version))


IMAGES = (
    OsImage("dstack-0.5.5", (0, 5, 5), is_dev=False),
    OsImage("dstack-dev-0.5.5", (0, 5, 5), is_dev=True),
    OsImage("dstack-dev-0.5.4.1", (0, 5, 4, 1), is_dev=True),
    OsImage("dstack-0.5.4", (0, 5, 4), is_dev=False),
)
DEFAULT = IMAGES[3]


def find(name_or_slug: str) -> OsImage | None:
    """The image of this name or slug."""
    return next((image for image in IMAGES if name_or_slug in (image.name, image.slug)), None)


def available(current: str) -> list[Json]:
    """Images grouped by version, newest first, as `available-os-images` answers."""
    versions = sorted({image.version for image in IMAGES}, reverse=True)
    return [
        {
            "version": list(version),
            "prod": _variant(version, current, is_dev=False),
            "dev": _variant(version, current, is_dev=True),
        }
        for version in versions
    ]


def public(image: OsImage) -> Json:
    """An item of `/os-images`."""
    return {
        "name": image.name,
        "slug": image.slug,
        "version": image.dotted,
        "os_image_hash": image.os_image_hash,
        "is_dev": image.is_dev,
        "requires_gpu": False,
    }


def _variant(version: tuple[int, ...], current: str, *, is_dev: bool) -> Json | None:
    for image in IMAGES:
        if image.version == version and image.is_dev is is_dev:
            return {
                "name": image.name,
                "slug": image.slug,
                "os_image_hash": image.os_image_hash,
                "is_current": image.name == current,
            }
    return None
