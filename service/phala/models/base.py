"""What all answers have in common: unknown members are ignored, null counts as absent, values never show in errors."""

from datetime import UTC, datetime
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, model_validator


def _with_zone(value: datetime) -> datetime:
    return value if value.tzinfo else value.replace(tzinfo=UTC)


#: A moment in UTC; the server leaves the zone out in places.
UtcDatetime = Annotated[datetime, AfterValidator(_with_zone)]


class Model(BaseModel):
    """Base of all answers; immutable."""

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True, protected_namespaces=())

    @model_validator(mode="before")
    @classmethod
    def _null_is_absent(cls, data: Any) -> Any:  # noqa: ANN401 - pydantic hands over whatever arrived
        return {name: item for name, item in data.items() if item is not None} if isinstance(data, dict) else data
