"""What people type or paste to name a hub repository, turned into its id and revision."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from huggingface_hub import constants
from huggingface_hub.utils import HFValidationError, validate_repo_id

from llmtrap.errors import TargetError

FORMS = "org/name, org/name@revision, org/name/folder, hf://org/name@revision/folder, or the address of its page"

_OTHER_KINDS = {"datasets": "dataset", "spaces": "space", "kernels": "kernel", "buckets": "bucket"}
_KIND_PREFIXES = {*_OTHER_KINDS, *_OTHER_KINDS.values(), "models", "model"}
# Pages of a repository that name a revision; any other page is refused, not guessed at.
_REVISION_PAGES = {"tree", "blob", "resolve", "raw", "blame", "commit", "commits"}
# The only revisions that hold a slash when they are not percent-encoded.
_SPECIAL_REVISION = re.compile(r"refs/(?:pr/\d+|convert/[\w.-]+)")
_PUBLIC_HOSTS = {"huggingface.co", "www.huggingface.co", "hf.co"}


@dataclass(frozen=True)
class HubTarget:
    """A model repository, the branch, tag or commit asked for (None: the main branch), and a path within it.

    `path` names a folder or a file, without a slash at either end; empty for the whole repository.
    """

    repo_id: str
    revision: str | None = None
    path: str = ""


def hub_endpoint() -> str:
    """Address of the hub in use: `HF_ENDPOINT`, or the public one, without a trailing slash."""
    return (os.environ.get("HF_ENDPOINT") or constants.ENDPOINT).rstrip("/")


def parse_target(text: str, *, endpoint: str | None = None) -> HubTarget:
    """Read a repository's name in any form that people use.

    Args:
        text: `org/name`, `org/name@revision`, `org/name/path`, `hf://org/name@revision/path`, or an address copied
            from a browser (`https://huggingface.co/org/name/tree/revision/path`, `…/blob/revision/file`).
        endpoint: the hub whose addresses are known beside the public ones; default `HF_ENDPOINT`.

    Raises:
        TargetError: the text names no repository, or one that is not a model.
    """
    text = text.strip()
    if text.startswith("hf://"):
        return _parse_path(text, text.removeprefix("hf://").strip("/"))
    path = _path_of_page(text, endpoint or hub_endpoint())
    if path is not None:
        return _parse_page(path)
    name, _, revision = text.partition("@")
    kind, rest = _split_kind(name)
    base, path = _split_path(rest if kind is not None and rest.count("/") >= 1 else name)
    _refuse_other_kinds(kind, base)
    return _target(base, revision if "@" in text else None, path, shown=text)


def _parse_path(shown: str, path: str) -> HubTarget:
    """`[models/]org/name[@revision][/path]`, as in hf:// addresses."""
    kind, path = _split_kind(path)
    _refuse_other_kinds(kind, path)
    name, at, rest = path.partition("@")
    if not at or name.count("/") > 1:  # an @ further on belongs to a file's name
        name, path = _split_path(path)
        return _target(name, None, path, shown=shown)
    return _target(name, *_leading_revision(rest), shown=shown)


def _parse_page(path: str) -> HubTarget:
    """`org/name[/page/revision[/path]]`, as in a browser's address bar."""
    kind, path = _split_kind(path.strip("/"))
    _refuse_other_kinds(kind, path)
    parts = path.split("/", 3)
    name = "/".join(parts[:2]).removesuffix(".git")
    if len(parts) < 3:
        return _target(name, None, "", shown=path)
    if parts[2] not in _REVISION_PAGES or len(parts) < 4:
        raise TargetError(f"'{path}' is not a repository's page", remedy=f"Give {FORMS}")
    return _target(name, *_leading_revision(parts[3]), shown=path)


def _path_of_page(text: str, endpoint: str) -> str | None:
    """The path of a hub page's address; None where the text is no address at all."""
    is_address = text.startswith(("https://", "http://"))
    if not is_address and text.partition("/")[0].lower() not in _PUBLIC_HOSTS:
        return None
    page, hub = urlsplit(text if is_address else f"https://{text}"), urlsplit(endpoint)
    prefix = hub.path.strip("/")
    if (page.hostname, page.port) == (hub.hostname, hub.port):
        path = page.path.strip("/")
        return path.removeprefix(prefix).strip("/") if f"{path}/".startswith(f"{prefix}/") or not prefix else path
    if (page.hostname or "").lower() in _PUBLIC_HOSTS:
        return page.path
    # The address may carry a password or a token: only its host is repeated.
    raise TargetError(
        f"{page.hostname or 'this address'} is not a hub that llmtrap knows",
        remedy=f"Set HF_ENDPOINT for a hub of your own, or give {FORMS}",
    )


def _leading_revision(text: str) -> tuple[str, str]:
    """The revision at the head of `revision/path`, and the path."""
    special = _SPECIAL_REVISION.match(text)
    if special:
        return special.group(), unquote(text[special.end() :])
    revision, _, path = text.partition("/")
    return unquote(revision), unquote(path)


def _split_path(text: str) -> tuple[str, str]:
    """`org/name` and what follows it."""
    parts = text.split("/", 2)
    return "/".join(parts[:2]), parts[2] if len(parts) > 2 else ""


def _split_kind(path: str) -> tuple[str | None, str]:
    first, _, rest = path.partition("/")
    return (first, rest) if first in _KIND_PREFIXES else (None, path)


def _refuse_other_kinds(kind: str | None, path: str) -> None:
    singular = _OTHER_KINDS.get(kind or "", kind)
    if singular in _OTHER_KINDS.values():
        raise TargetError(
            f"'{path}' is named as a {singular}, and llmtrap audits models",
            remedy=f"Give the model repository: {FORMS}",
        )


def _target(name: str, revision: str | None, path: str, *, shown: str) -> HubTarget:
    path = path.strip("/")
    try:
        if name.count("/") != 1 or revision == "" or ".." in path.split("/") or "\\" in path:
            raise HFValidationError("not org/name")
        validate_repo_id(name)
    except HFValidationError:
        raise TargetError(f"'{shown}' does not name a hub repository", remedy=f"Give {FORMS}") from None
    return HubTarget(name, revision, path)
