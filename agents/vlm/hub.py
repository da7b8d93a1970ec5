"""Trained checkpoints on a hub: a model's folder as a repository, with its card."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub import HfApi, get_token
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id


class PushError(Exception):
    """A checkpoint could not be pushed; it lies where it was saved."""


def require_pushable(repo: str) -> None:
    """Refuse what could not be pushed to, before anything is trained.

    Raises:
        ValueError: the name is none of a repository, or there is no token.
    """
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"{repo!r} names no repository: {error}") from error
    if get_token() is None:
        raise ValueError("pushing needs a token: run `hf auth login`, or set HF_TOKEN")


def push_to_hub(folder: Path, repo: str, message: str) -> str:
    """Push a checkpoint's folder; a repository that is not there is made, and is private.

    Args:
        folder: of the checkpoint.
        repo: ``NAMESPACE/NAME``, or the name of one of one's own.
        message: of the commit.

    Returns:
        Where it is.

    Raises:
        PushError: the hub is out of reach, or refuses; the message says why in a line.
    """
    api = HfApi()
    try:
        made = api.create_repo(repo, private=True, exist_ok=True)
        api.upload_folder(folder_path=folder, repo_id=made.repo_id, commit_message=message)
    except (
        Exception
    ) as error:  # whatever the library, its transport and the hub raise: nothing here is lost
        raise PushError(f"{folder} could not be pushed to {repo}: {_reason(error)}") from error
    return str(made)


def _reason(error: BaseException) -> str:
    """What an error says in a line, and what it came from."""
    told = " ".join(str(error).split()) or type(error).__name__
    return told if error.__cause__ is None else f"{told} {_reason(error.__cause__)}"
