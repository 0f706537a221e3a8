"""What descriptions share: values that are checked, and one line of what is wrong with them."""

from typing import Any, Self

from pydantic import BaseModel, ConfigDict, ValidationError

__all__ = ["Fields", "Schema"]

_KINDS = {
    "bool_type": "true or false",
    "dict_type": "a table",
    "finite_number": "a finite number",
    "float_type": "a number",
    "int_type": "an integer",
    "string_type": "text",
}
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "greater_than": ("more than", "gt"),
    "less_than_equal": ("at most", "le"),
    "less_than": ("less than", "lt"),
}


class Fields(BaseModel):
    """Plain values that never change. What is not declared is refused, and nothing is converted."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class Schema(BaseModel):
    """Makes a description say what is wrong with it in one line.

    Raises:
        ValueError: a value is not one of those allowed; names the field and what was expected.
    """

    def __init__(self, **values: Any) -> None:
        try:
            super().__init__(**values)
        except ValidationError as error:
            raise ValueError(self._in_one_line(error)) from error

    def replace(self, **changes: Any) -> Self:
        """The same with other values, checked like the first.

        Raises:
            ValueError: as when it was made.
        """
        return type(self)(**{**self.model_dump(), **changes})

    @classmethod
    def _in_one_line(cls, error: ValidationError) -> str:
        first = error.errors()[0]
        name, kind, context = ".".join(map(str, first["loc"])), first["type"], first.get("ctx", {})
        if kind == "value_error":
            return str(context["error"])
        if kind == "missing":
            return f"{name} is missing"
        if kind == "extra_forbidden":
            return f"there is no field {name!r}; there are: {', '.join(cls.model_fields)}"
        if kind == "literal_error":
            expected = "one of " + context["expected"].replace("'", "").replace(" or ", ", ")
        elif kind in _BOUNDS:
            words, bound = _BOUNDS[kind]
            expected = f"{words} {context[bound]:g}"
        else:
            expected = _KINDS.get(kind, first["msg"])
        return f"{name} is {first['input']!r}; expected {expected}"
