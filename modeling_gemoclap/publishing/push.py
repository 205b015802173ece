"""Push a checkpoint to the Hugging Face Hub in one commit."""

from __future__ import annotations

import json
import re
import tempfile
from glob import escape
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, constants, errors
from huggingface_hub.utils import HFValidationError

from ..command_line.failures import causes
from .card import CARD, CLASSIFIER, CONTRASTIVE, ENCODER
from .contents import checkpoint_files, is_pushed

COMMIT_HASH = re.compile(r"[0-9a-f]{40}")
NOTHING_LOST = "the checkpoint in {folder} is unchanged, and {repo} has no partial commit"
AUTO_MODELS = {
    CONTRASTIVE: "AutoModel",
    CLASSIFIER: "AutoModelForAudioClassification",
    ENCODER: "AutoModelForAudioXVector",
}
# Modules of the HTTP clients of huggingface_hub, whose errors mean that the Hub was not reached.
CLIENTS = ("httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3")


class PushError(RuntimeError):
    """A checkpoint could not be pushed to the Hub. The message says why, and what to do."""


def push_checkpoint(
    folder: Path | str,
    repo: str,
    *,
    private: bool | None = None,
    revision: str | None = None,
    tag: str | None = None,
    token: str | None = None,
) -> CommitInfo:
    """Push a checkpoint with its processor, code and card to the Hub, in one commit.

    The folder is checked first, and nothing is sent if it is not a complete checkpoint; see
    `publishing.contents.checkpoint_files`. The repository is created if it does not exist. Only the files of the
    checkpoint are pushed. Files of an earlier push that the folder does not have, such as shards, code or an adapter,
    are removed in the same commit: those that match `publishing.contents.PUSHED`, and code that the earlier card
    lists. Other files of the repository, such as an ONNX model, images or scripts, are kept. `load_snippet` gives the
    code that loads the result.

    Args:
        folder: Folder of the checkpoint.
        repo: Name of the repository, `NAMESPACE/NAME`.
        private: Whether a new repository is private; None: as the namespace is set. Existing ones are not changed.
        revision: Branch to push to, created from the main branch if it does not exist; default: the main branch.
        tag: Name of a tag for the commit.
        token: Access token of the Hub; default: that of `hf auth login` or `HF_TOKEN`.

    Returns:
        The commit. `oid` is its hash.

    Raises:
        ValueError: If the folder is not a complete checkpoint.
        PushError: If the Hub refuses or cannot be reached. The commit is complete or not there. If the connection
            broke while the commit was sent, it is unknown which, and the message says so.

    Example:
        >>> commit = push_checkpoint("runs/sl", "me/sl", tag="v1")  # doctest: +SKIP
        >>> print(load_snippet("me/sl", commit.oid))  # doctest: +SKIP
    """
    folder = Path(folder)
    files = checkpoint_files(folder)
    api = HfApi(token=token)
    try:
        _prepare(api, repo, private, revision, tag)
        earlier = _files_of_earlier_versions(api, repo, revision, files)
        commit = api.upload_folder(
            repo_id=repo,
            folder_path=folder,
            revision=revision,
            commit_message=f"Push {folder.resolve().name}",
            allow_patterns=[escape(name) for name in files],
            delete_patterns=[escape(name) for name in earlier] or None,
        )
    except PushError:
        raise
    except Exception as error:
        raise PushError(_outcome(error, folder, repo)) from error
    if tag:
        _add_tag(api, repo, tag, commit.oid)
    return commit


def _outcome(error: Exception, folder: Path, repo: str) -> str:
    """The message for a push that failed, or whose answer was lost."""
    undecided = f"{folder} may or may not have been pushed: look at {repo}"
    outcome = undecided if _is_undecided(error, "commit") else f"{folder} was not pushed to {repo}"
    return f"{outcome}: {push_failure(error, repo)}; {NOTHING_LOST.format(folder=folder, repo=repo)}"


def load_snippet(repo: str, commit: str, architecture: str = CONTRASTIVE) -> str:
    """Code that loads a pushed checkpoint at exactly one commit, so that its code cannot change.

    Args:
        repo: Name of the repository.
        commit: Hash of the commit.
        architecture: Name of the class of the model; see `publishing.card.read_checkpoint`.

    Raises:
        ValueError: If `commit` is not the hash of a commit, but for example a branch.
    """
    if not COMMIT_HASH.fullmatch(commit):
        raise ValueError(f"{commit!r} is not the hash of a commit (40 hexadecimal digits): give CommitInfo.oid")
    options = f'{json.dumps(repo)}, revision="{commit}", trust_remote_code=True'
    model = AUTO_MODELS[architecture]
    processor = "AutoProcessor" if architecture == CONTRASTIVE else "AutoFeatureExtractor"
    return (
        f"from transformers import {', '.join(sorted((model, processor)))}\n\n"
        f"model = {model}.from_pretrained({options})\n"
        f"processor = {processor}.from_pretrained({options})\n"
    )


def push_failure(error: BaseException, repo: str) -> str:
    """Say in one clause why the Hub refused a push or could not be reached, and what to do.

    Args:
        error: What a function of `huggingface_hub` raised.
        repo: Name of the repository.
    """
    reasons = (_reason(each, repo) for each in causes(error, context=True))
    return next(filter(None, reasons), _first_line(error))


def _is_undecided(error: BaseException, action: str) -> bool:
    """Whether the Hub may have done what the failed request asked for, because it gave no answer of its own.

    Args:
        error: What a function of `huggingface_hub` raised.
        action: `commit` or `tag`, a part of the path of its request.
    """
    for each in causes(error, context=True):
        try:
            request = getattr(each, "request", None) or getattr(each.response, "request", None)
        except (AttributeError, RuntimeError):  # httpx raises the latter for an error without a request
            continue
        if request is not None:
            status = getattr(getattr(each, "response", None), "status_code", None)
            return f"/{action}/" in str(request.url) and (status is None or status >= 500)
    return False


def _reason(error: BaseException, repo: str) -> str | None:
    """What a known error means; None for another one."""
    if isinstance(error, errors.OfflineModeIsEnabled):
        return "HF_HUB_OFFLINE is set: unset it to reach the Hub"
    if isinstance(error, HFValidationError):
        return f"{repo!r} is not the name of a repository: give NAMESPACE/NAME"
    if isinstance(error, errors.LocalTokenNotFoundError):
        return "there is no access token: run hf auth login, or set HF_TOKEN"
    status = getattr(getattr(error, "response", None), "status_code", None)
    if status in (401, 403):
        return (
            f"the access token is missing, wrong, or may not write to {repo} (HTTP {status}): run hf auth login with "
            f"a token that may write, or set HF_TOKEN"
        )
    if status == 404:
        return f"there is no repository {repo}, or the token may not see it (HTTP 404): check its name and the token"
    if status == 429:
        return "the Hub has had too many requests (HTTP 429): wait some minutes, then push again"
    if status is not None and status >= 500:
        return f"the Hub had an error of its own (HTTP {status}): push again later"
    from_client = type(error).__module__.partition(".")[0] in CLIENTS and status is None
    if from_client or isinstance(error, (ConnectionError, TimeoutError)):
        return f"the connection to the Hub broke ({_first_line(error)}): push again"
    return None


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".:") or type(error).__name__


def _files_of_earlier_versions(api: HfApi, repo: str, revision: str | None, files: list[str]) -> list[str]:
    """Files of the repository that an earlier push left, which the new version does not have."""
    there = api.list_repo_files(repo, revision=revision)
    card = ""
    if CARD in there:
        with tempfile.TemporaryDirectory() as folder:
            path = api.hf_hub_download(repo, CARD, revision=revision, local_dir=folder, force_download=True)
            card = Path(path).read_text(encoding="utf-8", errors="replace")
    return [name for name in there if name not in files and is_pushed(name, card)]


def _prepare(api: HfApi, repo: str, private: bool | None, revision: str | None, tag: str | None) -> None:
    """Create the repository and the branch, and check that the tag is free.

    Raises:
        PushError: If the repository has the tag already.
    """
    api.create_repo(repo, private=private, exist_ok=True)
    if revision and revision != constants.DEFAULT_REVISION:
        api.create_branch(repo, branch=revision, exist_ok=True)
    if tag and tag in {each.name for each in api.list_repo_refs(repo).tags}:
        raise PushError(f"nothing was pushed: {repo} has a tag {tag} already; give another name")


def _add_tag(api: HfApi, repo: str, tag: str, commit: str) -> None:
    """Tag a commit.

    Raises:
        PushError: If the tag cannot be added, or may not have been. The message says that the commit was pushed.
    """
    try:
        api.create_tag(repo, tag=tag, revision=commit)
    except Exception as error:
        status = getattr(getattr(error, "response", None), "status_code", None)
        exists = f"{repo} has a tag {tag} already: give another name"
        reason = exists if status == 409 else push_failure(error, repo)
        lacks = "may or may not have the" if _is_undecided(error, "tag") else "has no"
        raise PushError(f"pushed to {repo} as commit {commit}, but it {lacks} tag {tag}: {reason}") from error
