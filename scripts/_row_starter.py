"""The process that forks the rows of a study; common/studies/row_starter.py starts it with the import path of scripts."""

import runpy
import sys

import _path  # noqa: F401

from common.studies import row_starter

if __name__ == "__main__":
    row_starter.serve(int(sys.argv[1]))
    # Only a row's process gets here.
    row_starter.leave_after(lambda: runpy.run_path(sys.argv[0], run_name="__main__"))
