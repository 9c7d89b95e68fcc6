"""`load`: a stored model, ready to be asked; `QuestionAnswerer`: the same asked as transformers' pipeline was."""

from os import PathLike
from typing import TYPE_CHECKING

from ..inference.models import Model as Model
from ..inference.question_answerer import QuestionAnswerer as QuestionAnswerer

if TYPE_CHECKING:
    from .fitting import Run


def load(model: "str | PathLike[str] | Run") -> Model:
    """The model of a URI (models:/NAME@ALIAS, models:/NAME/VERSION, runs:/ID/model), of a run or its id, of a folder, or of the hub.

    From the store, each file is held against what was recorded when the model was logged, and the model answers with the code
    that is stored with it. Of a folder, saved by this project or by transformers, and of a model of the hub no code is run:
    this library's own opens the weights. UserError if there is no such model, a file was changed, or the model neither
    answers questions nor classifies texts.
    """
    from ..inference import models
    from .fitting import Run

    return models.load(model.model_uri if isinstance(model, Run) else str(model))
