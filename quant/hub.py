"""The Hugging Face Hub, where a release may go."""

from pathlib import Path
from typing import TYPE_CHECKING

from malmoi.errors import ReleaseError

if TYPE_CHECKING:
    from huggingface_hub import HfApi


def open_hub(repo: str) -> "HfApi":
    """The Hub as HF_ENDPOINT and HF_TOKEN, or a login, give it; nothing is sent yet.

    Raises: ReleaseError if `repo` is no name for a repository.
    """
    from huggingface_hub import HfApi

    check_repo("--push", repo)
    return HfApi()


def check_repo(option: str, repo: str) -> None:
    """Raises ReleaseError if what the option gives, or would have to, is no name of a repository on the Hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils._validators import validate_repo_id

    found = repo if "/" not in repo else None
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        found = str(error)
    if found is not None:
        raise ReleaseError(
            option,
            expected="OWNER/NAME, as the Hub has it",
            found=found,
            next_step=f"name it: {option} OWNER/NAME",
        )


def send(directory: Path, repo: str, hub: "HfApi") -> str:
    """Uploads a release, and removes what else is in the repository; the address of the commit.

    A signature covers the directory as a whole, so nothing of an earlier release may stay. A repository that is
    not there is made, private.

    Raises: ReleaseError if the Hub does not take it.
    """
    try:
        hub.create_repo(repo, private=True, exist_ok=True)
        return str(
            hub.upload_folder(
                repo_id=repo,
                folder_path=directory,
                commit_message=f"Release {directory.name}",
                delete_patterns="*",
            )
        )
    except Exception as error:  # its own kinds, those of its HTTP client and of its storage client
        said = str(error) or type(error).__name__
        raise ReleaseError(
            f"--push {repo}",
            expected="that the Hub takes the release",
            found=said.splitlines()[0],
            next_step=f"it is in {directory}: log in (hf auth login) and send it: hf upload {repo} {directory}",
        ) from error
