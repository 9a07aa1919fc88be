"""Options whose numbers are numbers, and numbers that change in the course of a run."""

from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, GetCoreSchemaHandler
from pydantic_core import CoreSchema, PydanticCustomError, core_schema

_DATA = {"default", "metadata", "serialization"}
"""Keys of a schema that hold no schemas of what is validated."""


def _with_plain_numbers(schema: Any) -> Any:
    """The schema with `_plain` before every number, however deep."""
    if isinstance(schema, list):
        return [_with_plain_numbers(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    if schema.get("type") in ("int", "float"):
        return core_schema.no_info_before_validator_function(_plain, schema)
    return {
        key: part if key in _DATA else _with_plain_numbers(part) for key, part in schema.items()
    }


def _plain(value: object) -> object:
    """Pydantic would take 'true' for 1 and '3' for 3."""
    if isinstance(value, bool | str | bytes):
        raise PydanticCustomError("no_number", "input should be a number")
    return value


class Options(BaseModel):
    """Frozen options. A number is finite, and neither a text nor a truth value.

    Where a whole number is due, 1e6 is one.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False
    )

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler, /
    ) -> CoreSchema:
        return _with_plain_numbers(handler(source))


@dataclass(frozen=True)
class Each:
    """What holds for every value of a schedule."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None

    def __get_pydantic_core_schema__(
        self, source: Any, handler: GetCoreSchemaHandler, /
    ) -> CoreSchema:
        value = core_schema.float_schema(ge=self.ge, gt=self.gt, le=self.le)
        share = core_schema.float_schema(gt=0, le=1)
        return core_schema.tagged_union_schema(
            {
                "value": value,
                "line": core_schema.tuple_schema([value, value]),
                "share": core_schema.tuple_schema([value, value, share]),
            },
            _form,
            custom_error_type="no_schedule",
            custom_error_message="give a number, [first, last] or [first, last, share]",
        )


def _form(value: object) -> str | None:
    """Which of the three; none where it is no schedule."""
    if isinstance(value, list | tuple):
        return {2: "line", 3: "share"}.get(len(value))
    return "value" if isinstance(value, int | float) else None


Values = float | tuple[float, float] | tuple[float, float, float]

Schedule = Annotated[Values, Each()]
"""A constant; ``[first, last]``, linear over the run; ``[first, last, share]``, over that share."""

PositiveSchedule = Annotated[Values, Each(gt=0)]
NonNegativeSchedule = Annotated[Values, Each(ge=0)]
UnitSchedule = Annotated[Values, Each(ge=0, le=1)]


def schedule_value(schedule: Values, progress: float) -> float:
    """The value of a schedule when `progress` (0 to 1) of the training is over."""
    if not isinstance(schedule, tuple):
        return schedule
    first, last = schedule[:2]
    share = schedule[2] if len(schedule) == 3 else 1.0
    return first + (last - first) * min(max(progress / share, 0.0), 1.0)
