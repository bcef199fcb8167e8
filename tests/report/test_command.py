"""The command that a report names: it asks for the same numbers, and nothing in it can end the quotes."""

from __future__ import annotations

import shlex

from tests.support import documents
from tests.support.commands import options

from llmtrap.report.command import audit_command


def test_defaults_are_left_out() -> None:
    revision = "0123456789abcdef0123456789abcdef01234567"
    assert audit_command(documents.trapped()) == f"llmtrap audit org/trapped-0.5b --revision {revision}"
    assert audit_command(documents.partial()) == "llmtrap audit '/data/checkpoints/run 7/step-1000' --traps certify"


def test_every_setting_that_changes_a_number_is_there_and_known_to_the_command() -> None:
    settings = documents.SETTINGS.model_copy(
        update={
            "traps": "measure",
            "trap_rule": "weightwatcher",
            "alpha": False,
            "include": ("layers.*", "a b"),
            "exclude": ("*.q",),
            "split_fused": True,
            "shuffles": 9,
            "seed": 3,
        }
    )
    command = shlex.split(audit_command(documents.report([documents.matrix("a")], revision=None, settings=settings)))
    assert command == shlex.split(
        "llmtrap audit org/model --traps measure --trap-rule weightwatcher --no-alpha --include 'layers.*' "
        "--include 'a b' --exclude '*.q' --split-fused --shuffles 9 --seed 3"
    )
    declared = options("audit")
    assert {word for word in command if word.startswith("--")} <= set(declared)
    assert (declared["--shuffles"].default, declared["--seed"].default) == (5, 0)
    assert (declared["--traps"].default, declared["--trap-rule"].default) == ("auto", "tracy-widom")


def test_a_hostile_name_stays_one_word() -> None:
    command = shlex.split(audit_command(documents.hostile()))
    assert command == ["llmtrap", "audit", documents.HOSTILE_NAMES[0], "--revision", documents.HOSTILE_NAMES[1]]
