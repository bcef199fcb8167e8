"""What a hub or the network says no with, turned into errors that a user can act on. No address is ever repeated."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from urllib.parse import urlsplit

from llmtrap.checkpoint.sources.hub.library import http, hub_headers
from llmtrap.checkpoint.sources.hub.retry import CARRY_ON, TransientError, UnreachedError, asked_pause
from llmtrap.errors import AccessError, CheckpointError, LlmtrapError, TargetError

_BAD_TOKEN = "Invalid credentials in Authorization header"  # noqa: S105 - words of the hub
_DISABLED = "Access to this resource is disabled."
_LOG_IN = "Log in with `hf auth login` (or set HF_TOKEN) and run the same command again: it carries on where it stopped"


@dataclass(frozen=True)
class Repository:
    """One repository on one hub. `revision` is the commit once that is known, `asked` what led to it."""

    repo_id: str
    endpoint: str
    revision: str | None = None
    asked: str | None = None

    @property
    def hub(self) -> str:
        """The hub's address without the password it may hold."""
        parts = urlsplit(self.endpoint)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()

    @property
    def page(self) -> str:
        """Address of the page where a person can see it."""
        return f"{self.hub}/{self.repo_id}"


def check_hub_answer(response: http.Response, repository: Repository, file: str | None = None) -> None:
    """Pass a good answer or a redirect of the hub; raise what a bad one means.

    Raises:
        TransientError: worth another try.
        LlmtrapError: not worth one, with what to do.
    """
    check_busy(response, "the hub")
    if response.status_code >= 400:
        raise explained(response, repository, file)


def check_busy(response: http.Response, who: str) -> None:
    """Raise TransientError where the answer is a fault of the moment: too many requests, or a server's own trouble."""
    status = response.status_code
    if status in (408, 425, 429) or status >= 500:
        raise TransientError(f"{who} answered {status}", asked_pause(status, response.headers))


def explained(response: http.Response | None, repository: Repository, file: str | None = None) -> LlmtrapError:
    """The hub's no as an error that says which page to visit or how to log in.

    It is told from the status and the headers alone: the body may have no end.
    """
    status = 0 if response is None else response.status_code
    code = None if response is None else response.headers.get("X-Error-Code")
    said = None if response is None else response.headers.get("X-Error-Message")
    name, has_token = repository.repo_id, "authorization" in hub_headers()
    if code == "GatedRepo":
        who = "your account has no access to it yet" if has_token else "you are not logged in"
        remedy = f"Ask for access on {repository.page}. {_LOG_IN}"
        return AccessError(f"the repository {name} is gated, and {who}", file=file, remedy=remedy)
    if code == "RevisionNotFound":
        problem = f"the repository {name} has no revision '{repository.revision}'"
        return TargetError(problem, remedy=f"Its branches and tags are listed on {repository.page}/tree/main")
    if said == _DISABLED:
        return AccessError(f"the hub has disabled the repository {name}", remedy=f"See {repository.page}")
    if is_no_repository(response, file) and (status != 401 or not has_token or code == "RepoNotFound"):
        problem = f"there is no model repository {name} on {repository.hub}, or it is private"
        kind = TargetError if has_token else AccessError
        return kind(problem, remedy=f"Check the name. If it is private: {_LOG_IN}")
    if status == 401:
        problem = "the hub does not accept the token (it may have expired)" if has_token else "the hub asks for a token"
        return AccessError(problem, file=file or name, remedy=_LOG_IN)
    if status == 403:
        problem = f"this account may not read {name}"
        return AccessError(problem, file=file, remedy=f"See {repository.page} for who may. {_LOG_IN}")
    if status == 404:
        return CheckpointError("the hub lists this file and does not have it", file=file, remedy="Try another revision")
    return AccessError(f"the hub answered {status}", file=file or name, remedy=CARRY_ON)


def is_no_repository(response: http.Response | None, file: str | None = None) -> bool:
    """Whether the answer is how the hub says that there is no such repository, or none for this account."""
    if response is None:
        return False
    if response.headers.get("X-Error-Code") == "RepoNotFound":
        return True
    bad_token = response.headers.get("X-Error-Message") == _BAD_TOKEN
    return (response.status_code == 401 and not bad_token) or (response.status_code == 404 and file is None)


@contextmanager
def transport_faults(who: str) -> Iterator[None]:
    """Turn what a network does wrong into TransientError, in words that hold no address.

    A redirect to what is not the web, a malformed request: those are not the network's, and pass.
    """
    try:
        yield
    except http.ConnectTimeout:
        raise UnreachedError(who, "no connection in time") from None
    except http.TimeoutException:
        raise TransientError(f"{who} did not answer in time") from None
    except http.ConnectError as error:
        # Only the operating system's words ("Connection refused"), which say what is wrong with the network.
        raise UnreachedError(who, str(error)) from None
    except (http.NetworkError, http.RemoteProtocolError):
        raise TransientError(f"{who} dropped the connection") from None
    except http.ProxyError:
        raise TransientError(f"the proxy did not let the request to {who} through") from None
