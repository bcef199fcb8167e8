"""The GitHub output: workflow commands that annotate a run, and the step summary."""

from __future__ import annotations

from llmtrap.gate.document import Finding, Judgement, NotJudged
from llmtrap.gate.outputs.markdown import to_markdown
from llmtrap.gate.outputs.phrases import gap_words, line_of, policy_path, sentence

# GitHub shows ten errors and ten warnings of a step and drops the rest; ten in all leaves room for other tools.
LIMIT = 10
SUMMARY_BYTES = 1_000_000


def to_annotations(judgement: Judgement, limit: int = LIMIT) -> str:
    """At most ten workflow commands, worst first, one a line."""
    listed = [*judgement.errors, *judgement.warnings]
    shown = listed if len(listed) <= limit else listed[: limit - 1]
    lines = [_command(finding, judgement) for finding in shown]
    lines += [_gap(item, judgement) for item in judgement.unjudged[: max(0, limit - 1 - len(lines))]]
    if len(listed) > limit:
        rest = len(listed) - len(shown)
        lines.append(f"::notice title=llmtrap gate::and {rest} findings more, in the step summary")
    return "".join(f"{line}\n" for line in lines)


def to_summary(judgement: Judgement, room: int = SUMMARY_BYTES) -> str:
    """The step summary, within the size that GitHub takes."""
    for limit in (30, 10, 0):
        text = to_markdown(judgement, limit)
        if len(text.encode("utf-8", "backslashreplace")) <= room:
            break
    return text


def _command(finding: Finding, judgement: Judgement) -> str:
    kind = "error" if finding.level == "error" else "warning"
    title = f"{finding.rule} {finding.name}"
    where = f"file={_property(policy_path(judgement))},line={line_of(judgement, finding.rule)}"
    return f"::{kind} {where},title={_property(title)}::{_message(sentence(finding))}"


def _gap(item: NotJudged, judgement: Judgement) -> str:
    where = f"file={_property(policy_path(judgement))},line={line_of(judgement, item.rule)}"
    return f"::error {where},title={_property(f'{item.rule} {item.name}')}::not judged in {_message(gap_words(item))}"


def _message(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _message(text).replace(":", "%3A").replace(",", "%2C")
