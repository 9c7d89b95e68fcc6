"""An exported folder as a repository of the Hugging Face hub."""

import os
from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, HTTPError

from ..errors import NotHere, UserError, first_line
from ..hub import hub_answers
from ..models.base import is_hub_id

_FLAG = "--push_to_hub"


def check(repository: str) -> None:
    """UserError where a new repository of this name cannot be made; asked before anything is exported."""
    if "/" not in repository or not is_hub_id(repository):
        raise UserError(f"{_FLAG} {repository}: write ORG/NAME, or USER/NAME.")
    if get_token() is None:
        raise UserError(f"{_FLAG} {repository}: there is no token: run hf auth login, or set HF_TOKEN.")
    if not hub_answers():
        where = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
        raise NotHere(f"{_FLAG} {repository}: the hub {where} cannot be reached, or HF_HUB_OFFLINE is set.")
    try:
        if HfApi().repo_exists(repository):
            raise _exists(repository)
    except (HTTPError, HFValidationError) as error:
        raise _explained(repository, error) from None


def push(folder: Path, repository: str, private: bool) -> str:
    """Make a new repository and upload a folder into it; returns its address, and whether it is private.

    Without `private` the owner's default decides. UserError where the hub refuses, also where it makes the repository public
    although it should be private: then nothing is uploaded. The folder stays, and the message says what to type.
    """
    api = HfApi()
    try:
        # False would overrule an organization whose new repositories are private.
        address = api.create_repo(repository, private=private or None)
    except (HTTPError, HFValidationError, OSError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code == 409:
            raise _exists(repository) from None
        raise _explained(repository, error, f"The export is whole in {folder}.") from None
    try:
        hidden = bool(api.model_info(repository).private)
        if private and not hidden:
            raise UserError(
                f"{_FLAG} {repository}: the hub made it public although --private is given, so nothing was uploaded. The export is "
                f"whole in {folder}: make the repository private in its settings, then type hf upload {repository} {folder}"
            )
        api.upload_folder(
            repo_id=repository, folder_path=str(folder), commit_message="Export a fine-tuned model"
        )
    except (HTTPError, OSError, ValueError) as error:
        left = (
            f"The repository was made, and the export is whole in {folder}: hf upload {repository} {folder}"
        )
        raise _explained(repository, error, left) from None
    return f"{address} ({'private' if hidden else 'public'})"


def _exists(repository: str) -> UserError:
    return UserError(f"{_FLAG} {repository} exists already, and is not written over: name a new repository.")


def _explained(repository: str, error: Exception, left: str = "") -> UserError:
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    reason = {
        401: "the hub does not know the token: run hf auth login",
        403: "the token may not write there: use one with write access, or a name of your own",
    }.get(status or 0, first_line(error).rstrip("."))
    return UserError(" ".join([f"{_FLAG} {repository}: {reason}.", left]).strip())
