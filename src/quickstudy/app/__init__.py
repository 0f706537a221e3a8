"""The web app (``quickstudy serve``): draw, drop or type examples, and watch learners learn."""

from quickstudy.app.models import Models
from quickstudy.app.service import create_app
from quickstudy.app.tasks import Limits
from quickstudy.app.workbench import Workbench

__all__ = ["Limits", "Models", "Workbench", "create_app"]
