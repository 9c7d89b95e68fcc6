"""What the command line does, from Python: train, compare, register, load and export in a few lines (docs/PYTHON.md).

Importing this package is quick: what takes seconds (torch, MLflow) is imported by the functions.
"""

from .asking import Model, QuestionAnswerer, load
from .comparing import Comparison, compare
from .exporting import export
from .fitting import Run, fit
from .preparing import prepare
from .registering import register
from .technique_scripts import techniques

__all__ = [
    "Comparison",
    "Model",
    "QuestionAnswerer",
    "Run",
    "compare",
    "export",
    "fit",
    "load",
    "prepare",
    "register",
    "techniques",
]
