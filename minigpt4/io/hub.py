"""Repositories of the Hugging Face hub: which commit a name stands for."""

import os
from pathlib import Path
from typing import Literal

_SECONDS = 10.0


def is_hub_id(source: str | os.PathLike) -> bool:
    """Whether this can only be the name of a hub repository: ``owner/name``, and nothing here is called so."""
    return str(source).count("/") == 1 and not str(source).startswith(("/", ".", "~")) and not Path(source).exists()


def commit_of(name: str, kind: Literal["model", "dataset"] = "model", revision: str | None = None) -> str | None:
    """The commit that a repository stands at: what the hub says, else what was last fetched from it; None if neither knows.

    Args:
        name: ``owner/name``.
        revision: a branch, a tag or a commit; the main branch when not given.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.file_download import repo_folder_name

    try:
        return HfApi().repo_info(name, repo_type=kind, revision=revision, timeout=_SECONDS).sha
    except Exception:  # offline, or not open to this user: whoever loads it says so
        kept = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=name, repo_type=kind) / "refs" / (revision or "main")
    try:
        return kept.read_text().strip() or None
    except OSError:
        return None
