"""What the API is made of, under the name that the API's users know."""

from service.wiring import ApiParts as ApiContext

__all__ = ["ApiContext"]
