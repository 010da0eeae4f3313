"""Send an exported folder to a model hub. Nothing else in this project sends anything there.

    push_folder(Path("exports/madison_r2/gguf"), "someone/madison-r2-gguf", private=True, message="madison_r2 949d6299")

The token is huggingface_hub's own business: `HF_TOKEN`, or what `hf auth login` has stored. `HF_ENDPOINT` names another
hub. The repository is made where it is not there yet, private unless told otherwise; one that is there keeps what it is.
"""

from __future__ import annotations

import re
from pathlib import Path

from foundry_pipeline.errors import FoundryError

_REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def push_folder(folder: Path, repo: str, *, private: bool, message: str) -> str:
    """Upload every file of a folder in one commit; the commit's address.

    Raises FoundryError for a name that is no OWNER/NAME, without a token or the right to write, and where the hub cannot
    be reached or refuses; the folder stays as it is, and the same command sends only what is not there yet.
    """
    from httpx2 import HTTPError  # what huggingface_hub 2 speaks through
    from huggingface_hub import CommitOperationAdd, HfApi
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    if not _REPO.fullmatch(repo):
        raise FoundryError(f"`{repo}` is no repository of a hub", mend="name it as OWNER/NAME")
    api = HfApi()
    try:
        api.create_repo(repo, repo_type="model", private=private, exist_ok=True)
        # One commit of everything: `upload_folder` would let others see the first files before the last are there.
        files = [
            CommitOperationAdd(p.relative_to(folder).as_posix(), p) for p in sorted(folder.rglob("*")) if p.is_file()
        ]
        done = api.create_commit(repo, files, repo_type="model", commit_message=message)
    except OfflineModeIsEnabled as error:
        raise FoundryError(
            "the hub is not asked: HF_HUB_OFFLINE is set", where=repo, mend="unset HF_HUB_OFFLINE and repeat"
        ) from error
    except (RepositoryNotFoundError, HfHubHTTPError) as error:
        status = error.response.status_code if error.response is not None else None
        mend = "repeat the same command in a while: what was sent already is not sent again"
        if status in (401, 403, 404):
            mend = "log in with a token that may write there: hf auth login"
        elif status is not None and 400 <= status < 500 and status != 429:
            mend = "mend what it names, then repeat the same command"
        raise FoundryError(
            f"the hub refuses (status {status or 'not told'}): {str(error).strip().splitlines()[-1]}",
            where=f"{api.endpoint}/{repo}",
            mend=mend,
        ) from error
    except ValueError as error:  # a name that no hub takes, or a card that this one does not
        raise FoundryError(
            f"the hub does not take this: {str(error).strip().splitlines()[-1]}",
            where=f"{api.endpoint}/{repo}",
            mend="choose another name, or correct the licence of the model in assets/profiles/",
        ) from error
    except (HTTPError, OSError) as error:
        raise FoundryError(
            f"the hub cannot be reached ({type(error).__name__}: {str(error).strip()})",
            where=f"{api.endpoint}/{repo}",
            mend="connect to the network and repeat; what was sent already is not sent again",
        ) from error
    return str(done.commit_url)
