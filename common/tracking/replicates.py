"""Which runs repeat each other with another seed."""

import hashlib
import json
from collections.abc import Mapping

ABOUT_THE_RUN = {
    "experiment_name",
    "run_name",
    "parent_run",
    "output_dir",
    "save_steps",
    "logging_steps",
    "report_to",
    "resume",
    "skip_finished",
}
"""Parameters of a run that do not change what it computes."""

NOT_COMPARED = {*ABOUT_THE_RUN, "seed", "data", "data_dir", "gradient_norms"}
"""Parameters of a run in which a replicate may differ. The data is compared by its content, not by its folder."""


def settings_digest(parameters: Mapping[str, str]) -> str:
    """A digest of a run's parameters without NOT_COMPARED: equal where two runs differ in their seed alone."""
    kept = {name: value for name, value in parameters.items() if name not in NOT_COMPARED}
    return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()[:16]
