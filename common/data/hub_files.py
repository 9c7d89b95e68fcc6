"""Data sets of the hub as parquet files, from its cache or downloaded."""

from collections.abc import Sequence
from pathlib import Path

from ..errors import NotHere, UserError
from ..hub import hub_answers


def not_here(repository: str, error: Exception, online: bool, instead: str) -> NotHere:
    """Why a data set of the hub cannot be read, and what to do. online: whether the hub answered; instead: what else helps."""
    reason = type(error).__name__ if online else "the hub cannot be reached and the cache does not hold it"
    return NotHere(f"The hub's {repository} is not available: {reason}. Go online, or {instead}.")


def download_parquet(repository: str, splits: Sequence[str], *, instead: str) -> dict[str, list[Path]]:
    """The parquet files of each split of a data set, from the cache, or from the hub if it answers; NotHere if there are none.

    instead: what the user can do then.
    """
    from huggingface_hub import snapshot_download

    online = hub_answers()
    try:
        # By repository, never by load_dataset("squad"), which would take a folder of that name in the working directory.
        folder = snapshot_download(
            repository,
            repo_type="dataset",
            allow_patterns=[f"*{split}-*.parquet" for split in splits],
            etag_timeout=5,
            local_files_only=not online,
        )
    except Exception as error:
        raise not_here(repository, error, online, instead) from None
    files = {split: sorted(Path(folder).rglob(f"{split}-*.parquet")) for split in splits}
    for split, names in files.items():
        if not names:
            raise UserError(
                f"The hub's {repository} has no {split} file in {folder}; remove that folder and try again."
            )
    return files
