"""The technique scripts beside this file, found by their names."""

from common.api.technique_scripts import technique_scripts

__all__ = ["technique_scripts"]
