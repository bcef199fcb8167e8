"""Every form in which people name a repository gives its id and revision; everything else is refused by name."""

from __future__ import annotations

import pytest

from llmtrap.checkpoint.sources.hub import HubTarget, parse_target
from llmtrap.errors import TargetError

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.mark.parametrize(
    ("text", "revision", "path"),
    [
        ("org/name", None, ""),
        ("  org/name \n", None, ""),
        ("models/org/name", None, ""),
        ("org/name@v1.0", "v1.0", ""),
        ("org/name@refs/pr/3", "refs/pr/3", ""),
        (f"org/name@{COMMIT}", COMMIT, ""),
        ("org/name/unet", None, "unet"),
        ("models/org/name/unet/", None, "unet"),
        ("org/name/a/b@v2", "v2", "a/b"),
        ("hf://org/name", None, ""),
        ("hf://models/org/name", None, ""),
        ("hf://org/name@dev/model.safetensors", "dev", "model.safetensors"),
        ("hf://org/name@refs/pr/3/model.safetensors", "refs/pr/3", "model.safetensors"),
        ("hf://org/name@feature%2Fx/a/b", "feature/x", "a/b"),
        ("hf://org/name/folder/file@2.txt", None, "folder/file@2.txt"),
        ("https://huggingface.co/org/name", None, ""),
        ("https://huggingface.co/org/name/", None, ""),
        ("https://huggingface.co/org/name?library=transformers#usage", None, ""),
        ("https://huggingface.co/org/name.git", None, ""),
        ("huggingface.co/org/name/tree/v2", "v2", ""),
        ("hf.co/org/name", None, ""),
        ("https://hf.co/org/name/tree/main/original", "main", "original"),
        ("https://huggingface.co/org/name/blob/main/model.safetensors", "main", "model.safetensors"),
        ("https://huggingface.co/org/name/resolve/feature%2Fx/config.json?download=true", "feature/x", "config.json"),
        ("https://huggingface.co/org/name/tree/refs%2Fpr%2F7", "refs/pr/7", ""),
        (f"https://huggingface.co/org/name/commit/{COMMIT}", COMMIT, ""),
        ("http://hub.example:8080/hf/org/name/tree/v3/text%20encoder", "v3", "text encoder"),
    ],
)
def test_names_a_model(text: str, revision: str | None, path: str) -> None:
    assert parse_target(text, endpoint="http://hub.example:8080/hf") == HubTarget("org/name", revision, path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("datasets/org/name", "named as a dataset"),
        ("spaces/org/name", "named as a space"),
        ("hf://datasets/org/name@main/data.csv", "named as a dataset"),
        ("hf://buckets/org/name", "named as a bucket"),
        ("https://huggingface.co/datasets/org/name/tree/main", "named as a dataset"),
        ("https://huggingface.co/spaces/org/name", "named as a space"),
        ("https://huggingface.co/org/name/discussions/4", "is not a repository's page"),
        ("https://huggingface.co/org", "does not name a hub repository"),
        ("https://huggingface.co/", "does not name a hub repository"),
        ("https://example.com/org/name", "example.com is not a hub that llmtrap knows"),
        ("name", "does not name a hub repository"),
        ("org/name/../more", "does not name a hub repository"),
        ("https://huggingface.co/org/name/tree/main/a%2F..%2Fb", "does not name a hub repository"),
        ("datasets/org/name/data", "named as a dataset"),
        ("org/name@", "does not name a hub repository"),
        ("org/na me", "does not name a hub repository"),
        ("../name", "does not name a hub repository"),
        ("org/..", "does not name a hub repository"),
        ("hf://", "does not name a hub repository"),
        ("", "does not name a hub repository"),
    ],
)
def test_refuses_what_is_no_model(text: str, words: str) -> None:
    with pytest.raises(TargetError, match=words):
        parse_target(text, endpoint="https://huggingface.co")


def test_never_repeats_a_token_in_an_address() -> None:
    with pytest.raises(TargetError) as refusal:
        parse_target("https://user:hf_secret@example.com/org/name")
    assert "hf_secret" not in str(refusal.value)
    assert parse_target("https://user:hf_secret@huggingface.co/org/name") == HubTarget("org/name")
