"""A complete Phala Cloud client, usable on its own: ``from service.phala import PhalaCloud``."""

from service.phala.client import PhalaCloud
from service.phala.compose_hash import canonical_app_compose, compose_hash

__all__ = ["PhalaCloud", "canonical_app_compose", "compose_hash"]
