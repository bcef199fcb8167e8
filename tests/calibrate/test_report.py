"""What is concluded from runs, on made-up runs whose answers are known; and the page that says so."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from studies.grokking.report_again import again
from tests.support.measured import layer
from typer import Typer
from typer.testing import CliRunner

from llmtrap.calibrate.acceptance import check
from llmtrap.calibrate.conclusions import conclude
from llmtrap.calibrate.document import CalibrationReport, FailedRun
from llmtrap.calibrate.findings import counter_examples, onsets, phase_rows, rate_rows, separation_rows
from llmtrap.calibrate.followed import Run
from llmtrap.calibrate.measurement import Measurement
from llmtrap.calibrate.page import to_html
from llmtrap.calibrate.paper import beside_the_paper
from llmtrap.calibrate.presets import PRESETS, preset
from llmtrap.calibrate.profile import profile_of
from llmtrap.calibrate.recipe import TASKS
from llmtrap.calibrate.run import report_of, to_json
from llmtrap.calibrate.rundir import RunFolder
from llmtrap.calibrate.settings import CalibrationSettings, plan
from llmtrap.calibrate.workers import read_run
from llmtrap.cli.calibrate import calibrate_command
from llmtrap.errors import UsageError

#         step, train, test, centred traps in FC1, mean shifts
COLLAPSE = (
    (0, 0.10, 0.10, 0, 0),
    (10, 0.99, 0.20, 0, 0),
    (100, 1.00, 0.40, 0, 0),
    (1000, 1.00, 0.86, 0, 1),
    (2000, 1.00, 0.80, 0, 1),
    (3000, 0.99, 0.72, 2, 1),
    (4000, 0.98, 0.65, 9, 1),
)
HEALTHY = ((0, 0.1, 0.1, 0, 0), (10, 0.99, 0.3, 0, 0), (100, 1.0, 0.85, 0, 1), (1000, 1.0, 0.84, 0, 1))
STUBBORN = ((0, 0.1, 0.1, 0, 0), (10, 0.99, 0.3, 0, 0), (100, 1.0, 0.90, 3, 1), (1000, 1.0, 0.88, 6, 1))

Curve = tuple[tuple[int, float, float, int, int], ...]


def history(curve: Curve, arm: str = "wd0", seed: int = 0) -> Run:
    recipe = next(item for item in preset("mnist", "quick").arms if item.arm == arm)
    measured = tuple(
        Measurement(
            step=step,
            seconds=step / 100,
            train_accuracy=train,
            test_accuracy=test,
            train_loss=1 - train,
            test_loss=1 - test,
            l2=90.0 + centred,
            circuit_complexity=10.0,
            sparsity=(0.5, 0.6),
            dead=(centred, 0),
            class_share=(0.2, 0.3, 0.3, 0.4),
            layers=(layer("fc1.weight", centred, shift), layer("fc2.weight", 0, shift), layer("fc3.weight", 7, 0)),
        )
        for step, train, test, centred, shift in curve
    )
    scored = ("fc1.weight", "fc2.weight")
    recipe = replace(recipe, steps=curve[-1][0])
    return Run(recipe=recipe, seed=seed, source="made up", scored=scored, checkpoints=measured)


def under_way(run: Run, steps: int) -> Run:
    """The same where it is to go on."""
    return Run.model_validate(run.model_dump() | {"recipe": replace(run.recipe, steps=steps)})


def runs() -> list[Run]:
    return [
        *(history(COLLAPSE, seed=seed) for seed in range(3)),
        *(history(HEALTHY, "decay", seed) for seed in range(3)),
        *(history(STUBBORN, "wd0.1", seed) for seed in range(3)),
    ]


def test_a_collapse_with_traps_is_accepted_and_its_rules_can_fail() -> None:
    assert all(row.passed for row in check(history(COLLAPSE), "quick"))
    full = {row.rule: row.passed for row in check(history(COLLAPSE), "full")}
    assert full["at the end test ≤ peak − 0.15"]
    early = tuple((step, train, test, 4, shift) for step, train, test, _, shift in COLLAPSE)
    failed = [row.rule for row in check(history(early), "quick") if not row.passed]
    assert failed == [
        "none of them has more than 1 centred trap",
        "at most 1 centred trap at the peak",
        "at the end at least 5 centred traps in the first layer",
    ]
    assert [row.passed for row in check(history(HEALTHY), "quick")] == [True, True, True, False, True, False]
    assert not check(history(COLLAPSE[:2]), "quick")[0].passed


def test_the_true_negative_has_its_own_rules_and_the_hard_case_none() -> None:
    assert [row.passed for row in check(history(HEALTHY, "decay"), "quick")] == [True, True]
    assert [row.passed for row in check(history(COLLAPSE, "decay"), "quick")] == [False, False]
    assert check(history(STUBBORN, "wd0.1"), "quick") == ()


def test_a_run_under_way_is_not_held_to_its_end() -> None:
    whole = history(COLLAPSE[:5])
    stopped = under_way(whole, 40_000)
    assert not stopped.complete
    rules = [row.rule for row in check(stopped, "quick")]
    assert len(rules) == 3
    assert rules == [row.rule for row in check(whole, "quick")][:3]
    healthy = history(HEALTHY, "decay")
    assert check(under_way(healthy, 40_000), "quick") == ()


def test_phase_table_is_mean_and_deviation_over_runs() -> None:
    second = tuple((s, tr, te - 0.04 if s == 4000 else te, c, m) for s, tr, te, c, m in COLLAPSE)
    rows = {row.measure: row.cells for row in phase_rows([history(COLLAPSE), history(second, seed=1)])}
    mean, spread, count = rows["test accuracy"]["anti-grok"]  # type: ignore[misc]
    assert (mean, count) == (pytest.approx(0.63), 2)
    assert spread == pytest.approx(0.02 * 2**0.5)
    assert rows["fc1: centred traps"]["grok"] == (0.0, 0.0, 2)
    assert phase_rows([history(HEALTHY)])[0].cells["anti-grok"] is None


def test_separation_and_rates_of_known_runs() -> None:
    rows = {(row.arms, row.measure): row for row in separation_rows(runs())}
    alone = rows["without weight decay", "centred"]
    assert (alone.anti, alone.grok, alone.pre) == (6, 9, 9)
    assert alone.against_grok is not None
    assert alone.against_grok.value == 1.0
    # All arms: anti has 2 and 9 traps, grokked 0 (9 times), 3 and 6 (3 times each): 2 beats 9 of 15, 9 beats all.
    pooled = rows["all", "centred"].against_grok
    assert pooled is not None
    assert pooled.value == pytest.approx((9 / 15 + 1) / 2)
    constant = rows["without weight decay", "circuit"].against_grok
    assert constant is not None
    assert constant.value == 0.5
    rates = {(row.arms, row.threshold): row for row in rate_rows(runs())}
    centred = rates["with weight decay", "centred traps (entry + heavy tail) ≥ 1"]
    assert centred.anti is None
    assert centred.grok is not None
    assert centred.grok.value == 1.0
    every = rates["without weight decay", "all traps, mean shifts too ≥ 1"]
    assert every.grok is not None
    assert every.grok.value == 1.0
    low = rates["without weight decay", "least reliable α (the audit's band) < 2"]
    assert low.anti is not None
    assert low.anti.value == 0.5


def test_exceptions_and_onsets() -> None:
    quiet = tuple((step, train, test, 0, shift) for step, train, test, _, shift in COLLAPSE)
    found = counter_examples([history(COLLAPSE), history(quiet, seed=1), history(STUBBORN, "wd0.1"), history(HEALTHY)])
    assert [(item.arm, item.seed, item.kind) for item in found] == [
        ("wd0", 1, "collapse without traps"),
        ("wd0.1", 0, "traps without collapse"),
    ]
    lags = onsets([history(COLLAPSE), history(quiet, seed=1), history(HEALTHY)])
    assert [(item.peak_step, item.trap_step) for item in lags] == [(1000, 3000), (1000, None)]
    assert lags[0].lost == pytest.approx(0.14)


def words_of(histories: list[Run]) -> str:
    checks = [row for item in histories for row in check(item, "quick")]
    exceptions, lags = counter_examples(histories), onsets(histories)
    return "\n".join(conclude(histories, checks, separation_rows(histories), rate_rows(histories), exceptions, lags))


def test_conclusions_can_come_out_either_way() -> None:
    favourable = words_of(runs())
    assert "The acceptance rules hold on 6 of 6 runs" in favourable
    assert "seen in 100 % (29 to 100 %) of anti-grokking checkpoints and in 0 % (0 to 46 %) of grokked" in favourable
    assert "such a count says nothing of overfitting" in favourable
    assert "traps follow the collapse, they do not foretell it" in favourable
    quiet = tuple((step, train, test, 0, shift) for step, train, test, _, shift in COLLAPSE)
    against = words_of([history(quiet, seed=seed) for seed in range(3)])
    assert "The acceptance rules hold on 0 of 3 runs" in against
    assert "0 % (0 to 71 %) of anti-grokking checkpoints" in against
    assert "Counter-example, collapse without traps: arm wd0, seeds 0, 1, 2: 0 centred traps at the end" in against
    assert "3 show none" in against


def test_a_counter_example_that_does_not_show_is_named_too() -> None:
    words = words_of([history(STUBBORN, "wd0.1"), history(HEALTHY, "wd0.1", 1)])
    assert "arm wd0.1, seed 0: 6 centred traps at the end, test accuracy 0.020 below its peak, train 1.000." in words
    assert "Arm wd0.1 seed 0 is there" not in words
    assert (
        "Arm wd0.1 seed 1 is there for traps without collapse and did not show it: 0 centred traps, test 0.840 after "
        "a peak of 0.850, train 1.000."
    ) in words


def test_the_paper_s_numbers_stand_beside_ours() -> None:
    rows = {(row.source, row.quantity, row.phase): row for row in beside_the_paper("mnist", phase_rows(runs()))}
    here = rows["2602.02859, table 2", "traps of FC1", "anti-grok"]
    assert (here.paper, here.here) == ("7.5 ± 5.6", "10 ± 0 (3 runs)")
    assert rows["2602.02859, table 1", "α, mean of both", "grok"].here == "4 ± 0 (3 runs)"
    assert rows["2602.02859, appendix I: initialisation × 4", "traps of the head", "anti-grok"].paper == "5.5"
    assert ("2602.02859, table 2", "traps of FC1, weight decay 0.01", "grok") not in rows
    assert beside_the_paper("composition", phase_rows(runs())) == ()


def test_every_preset_has_distinct_arms_that_fit_their_task() -> None:
    for task in TASKS:
        for name in PRESETS:
            arms = preset(task, name).arms
            assert len({arm.arm for arm in arms}) == len({arm.digest() for arm in arms}) == len(arms)
            assert all(arm.task == task for arm in arms)


def test_a_plan_refuses_what_is_not_there(tmp_path: Path) -> None:
    settings = CalibrationSettings(out=tmp_path, task="digits")
    assert [run.folder.name for run in plan(settings)] == [
        "digits-wd0.1-seed0",
        "digits-wd0-seed0",
        "digits-decay-seed0",
    ]
    with pytest.raises(UsageError, match=r"no arm nonsense.*decay, wd0, wd0\.1"):
        plan(replace(settings, arms=("nonsense",)))
    with pytest.raises(UsageError, match="--seeds must be at least 1"):
        plan(replace(settings, seeds=0))


@pytest.fixture(scope="session")
def made_up(tmp_path_factory: pytest.TempPathFactory) -> CalibrationReport:
    """A report of made-up runs, through the same code as real ones; no run is looked at closely."""
    out = tmp_path_factory.mktemp("calibration")
    settings = CalibrationSettings(out=out, task="mnist", seeds=3, arms=("decay", "wd0.1"), steps=4000, workers=1)
    curves = {"decay": COLLAPSE, "wd0.1": STUBBORN}
    planned = [run for run in plan(settings) if run.seed > 0]
    for run in planned:
        folder = RunFolder(run.folder)
        folder.path.mkdir(parents=True)
        (folder.path / "recipe.json").write_text(json.dumps({"source": "</script><img src=x onerror=alert(1)>"}))
        for measured in history(curves[run.recipe.arm]).checkpoints:
            folder.append_measure(measured)
    followed = [found for run in planned if (found := read_run(run)) is not None]
    return report_of(settings, followed, [FailedRun(name="mnist wd0 seed 9", error="diverged")], [], 0.0)


def test_the_document_survives_json_and_the_profile_reads_its_runs(made_up: CalibrationReport) -> None:
    text = to_json(made_up)
    again = CalibrationReport.model_validate_json(text)
    assert again == made_up
    assert sum(line.startswith("  {") and '"checkpoints":' in line for line in text.splitlines()) == 4
    assert [(run.recipe.arm, run.seed, run.complete) for run in again.runs] == [
        ("decay", 1, True),
        ("decay", 2, True),
        ("wd0.1", 1, False),
        ("wd0.1", 2, False),
    ]
    assert again.runs[0].phases[-1] == "anti-grok"
    profile = profile_of([again])
    assert profile.runs[0].checkpoints == {"pre-grok": 4, "grok": 2, "anti-grok": 4}
    assert profile.sentence == (
        "In 4 training runs of small networks, centred traps told checkpoints that had lost 10 points of test "
        "accuracy, while still fitting their training data, from well-generalising ones with an AUC of 0.67 (0.57 to "
        "1.00) on MNIST; the l2 norm alone had 0.67 there; these rates are of those networks and are not "
        "known for language models."
    )


def test_the_page_is_whole_and_escapes_what_it_is_told(made_up: CalibrationReport) -> None:
    page = to_html(made_up)
    assert "<img src=x" not in page
    assert "&lt;/script&gt;&lt;img src=x" in page
    assert "mnist wd0 seed 9 failed: diverged" in page
    assert "not met" in page
    assert 'src="http' not in page
    assert page.count("data-figure=") == 2


def test_a_run_under_way_says_how_far_and_how_fast(made_up: CalibrationReport) -> None:
    # 1,000 steps in 10 seconds, 3,000 left; the last tenth of the steps is the last checkpoint alone.
    assert [sentence for sentence in made_up.conclusions if "stands at" in sentence] == [
        f"Arm wd0.1 seed {seed} stands at step 1,000 of 4,000: 100 steps a CPU second in the mean, 10 s so far; at the "
        "pace of its last tenth the rest takes about 30 s."
        for seed in (1, 2)
    ]
    assert made_up.conclusions[-1].startswith("These are small networks")


def test_a_report_is_written_again_from_its_own_json(made_up: CalibrationReport, tmp_path: Path) -> None:
    old = made_up.model_copy(update={"conclusions": ("stale",), "versions": {"llmtrap": "0.0.1"}})
    new = again(CalibrationReport.model_validate_json(to_json(old)), tmp_path)
    assert new == made_up.model_copy(update={"versions": {"llmtrap": "0.0.1"}})


@pytest.mark.browser
def test_the_page_draws_its_figures_in_a_browser(made_up: CalibrationReport, tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here")
    (tmp_path / "report.html").write_text(to_html(made_up), encoding="utf-8")
    done = subprocess.run(
        [
            chromium,
            *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
            *(f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1200,6000", "--virtual-time-budget=20000"),
            *("--enable-logging=stderr", "--dump-dom", (tmp_path / "report.html").as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    assert done.stdout.count('data-drawn="true"') == 2
    assert done.stdout.count('class="main-svg"') >= 2
    assert "CONSOLE" not in done.stderr, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.mark.thorough
def test_the_command_trains_reports_and_carries_on(tmp_path: Path) -> None:
    application = Typer()
    application.command()(calibrate_command)
    common = ["--task", "digits", "--arm", "wd0", "--out", str(tmp_path), "--workers", "1", "--device", "cpu"]
    first = CliRunner().invoke(application, [*common, "--steps", "40"])
    assert first.exit_code == 0, first.output
    assert "digits wd0 seed 0: 40 steps" in first.output
    report = CalibrationReport.model_validate_json((tmp_path / "report.json").read_text())
    assert [point.step for point in report.runs[0].checkpoints][-3:] == [25, 32, 40]
    assert report.checks
    assert not any(row.passed for row in report.checks if "at least 5" in row.rule)
    assert (tmp_path / "report.html").stat().st_size > 3_000_000
    assert json.loads((tmp_path / "calibration.json").read_text())["schema"] == "llmtrap.calibration-profile/1"
    lines = (tmp_path / "runs" / "digits-wd0-seed0" / "measures.jsonl").read_text()
    second = CliRunner().invoke(application, [*common, "--report-only", "--steps", "40"])
    assert second.exit_code == 0, second.output
    assert (tmp_path / "runs" / "digits-wd0-seed0" / "measures.jsonl").read_text() == lines
    wrong = CliRunner().invoke(application, [*common, "--data", "somewhere"])
    assert wrong.exit_code == 2
    assert "scikit-learn" in wrong.output
