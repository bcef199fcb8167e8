"""A tiny language model really overfitted, by Adam without weight decay, gated along the way.

What the gate says of it is reported as seen (docs/gate-studies.md has longer runs); what must hold is that the run
overfits, that every checkpoint is judged whole, and that each verdict follows from its findings.
"""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

MARKS = (1, 15, 60, 120, 180)


def test_a_real_overfit_is_judged_along_the_way(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    overfit = pytest.importorskip("studies.gate.overfit")
    points = list(overfit.follow(tmp_path, base_steps=60, marks=MARKS, rate=3e-3, small=600))
    seen = [(p.step, round(p.train_loss, 3), round(p.held_out_loss, 3), p.judgement.outcome) for p in points]
    record_property("overfit", str(seen))
    assert [point.step for point in points] == list(MARKS)
    # Overfitted: the loss on unseen text fell, turned early, and rose from there while the small set was learnt.
    turn = min(range(len(points)), key=lambda place: points[place].held_out_loss)
    assert 0 < turn < len(points) // 2
    assert points[turn].held_out_loss < points[0].held_out_loss - 0.1
    rising = [point.held_out_loss for point in points[turn:]]
    assert rising == sorted(rising)
    assert rising[-1] > points[0].held_out_loss + 0.3
    assert points[-1].train_loss < 0.5 * points[turn].train_loss
    changes = []
    for point in points:
        judgement = point.judgement
        counts = judgement.counts
        assert counts.unchanged + counts.measured == counts.matrices == 9
        assert judgement.exit_code == (1 if judgement.errors else 0)
        large = {update.id for update in judgement.updates if (update.relative or 0) > 0.5}
        assert {finding.id for finding in judgement.errors if finding.rule == "LT010"} == large
        changes.append(max(update.relative or 0 for update in judgement.updates))
    assert changes == sorted(changes)
