"""What mkdocstrings has to know of our docstrings."""

import re
from typing import Any

from griffe import Extension, Object


class Docstrings(Extension):
    """``text::`` before code and ``Example:`` become what its parser expects.

    And members of a class that have no docstring of their own are left out: fields that the
    class's docstring describes, and methods that `quickstudy.learner.MetaLearner` does.
    """

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            text = re.sub(r"(?<=\S)::$", ":", obj.docstring.value, flags=re.M)
            obj.docstring.value = re.sub(r"^Example:$", "Examples:", text, flags=re.M)
        elif obj.parent is not None and obj.parent.is_class:
            obj.public = False
