"""A release to the hub: what would be uploaded, and the upload.

for name, size in upload_plan(Path("release")).items(): ...
push_release(Path("release"), "me/ccai-7b", private=True)
"""

from __future__ import annotations

from pathlib import Path

from ccai_core.dataset_export import check_repository
from ccai_core.errors import ArtifactError, DataError, EngineError
from ccai_core.release.checksums import problems


def upload_plan(folder: Path) -> dict[str, int]:
    """Return the bytes of each file of a release that is as it was made.

    Raises:
        ArtifactError: a file was changed, added or lost.
    """
    if found := problems(folder):
        raise ArtifactError("\n".join([f"{folder}: is not as it was made.", *found]))
    return {
        str(file.relative_to(folder)): file.stat().st_size
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def push_release(folder: Path, repository: str, *, private: bool) -> str:
    """Upload a release as whoever is logged in at the hub; returns its address.

    Raises:
        ArtifactError: it is not as it was made.
        DataError: the repository is public and was to be private, or its name is none.
        EngineError: the hub is away or refuses (no token, no rights).
    """
    import httpx2 as httpx
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

    check_repository(repository)
    upload_plan(folder)
    api = HfApi()
    try:
        made = api.create_repo(repository, private=private, exist_ok=True)
        # One that was there before keeps its visibility, whatever was asked for.
        if private and not api.repo_info(repository).private:
            raise DataError(
                f"{repository}: is there already, for everybody to see. Say --public if that is "
                "meant, or choose another name."
            )
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Release")
    except (HfHubHTTPError, LocalTokenNotFoundError, httpx.HTTPError, OSError) as error:
        raise EngineError(
            f"{repository}: cannot be uploaded ({str(error).splitlines()[0]}). Log in with `hf "
            "auth login` or set HF_TOKEN to a token that may write, and try again."
        ) from None
    return str(made)
