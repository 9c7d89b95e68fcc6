"""Puts the project root on the import path, so that every script runs from any directory without PYTHONPATH."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
