"""What a study leaves behind: the files, what their tables say, and that the page needs nothing else."""

import math
import re
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest

from common.reports.configurations import best, comparisons, configurations, matrices, short, text_of, tidy
from common.reports.study_figures import seconds_per_step
from common.reports.study_report import write_report
from common.scoring.uncertainty import interval, paired_difference, range_of_samples
from tests.support.studies import KINDS, make_gradients, make_runs, make_study

COSTS = {"efficiency_tradeoff.png", "f1_per_mparams.png", "time_per_step.png"}
FRONT = {"pareto.png"}
CURVES = {"accuracy_curves.png", "loss_curves.png"}
REPORTS = {"report.md", "report.html", "leaderboard.json"}
EXPECTED = {
    "techniques": COSTS | CURVES | FRONT,
    "learning_rates": COSTS | CURVES | {"metric_vs_learning_rate.png"},
    "sizes": COSTS | CURVES | FRONT | {"acc_vs_size.png"},
    "generative": COSTS | CURVES,
    "grid": COSTS
    | CURVES
    | FRONT
    | {
        "heatmap_r_targets.png",
        "heatmap_r_learning_rate.png",
        "heatmap_targets_learning_rate.png",
        "gradient_flow.png",
    },
}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Kind of study → (folder, paths, what was given), written once."""
    made = {}

    def write(kind):
        if kind not in made:
            folder = tmp_path_factory.mktemp(kind)
            given = KINDS[kind]()
            gradients = {run: make_gradients() for run in given[2]} if kind == "grid" else None
            made[kind] = folder, write_report(folder, *given, gradients), given
        return made[kind]

    return write


class Page(HTMLParser):
    """Tags with their attributes, tables as lists of rows, and all text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.tables, self.text, self.cell = [], [], "", False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.cell = True

    def handle_endtag(self, tag):
        self.cell = self.cell and tag not in ("td", "th")

    def handle_data(self, data):
        self.text += data
        if self.cell:
            self.tables[-1][-1][-1] += data


def read(folder):
    return (folder / "report.md").read_text(), Page((folder / "report.html").read_text())


def md_tables(text):
    """Header → rows of the pipe tables of a Markdown text, without bold."""
    found = []
    for block in re.findall(r"(?:^\|.*\n?)+", text, re.M):
        rows = [[cell.strip().strip("*") for cell in line[2:-2].split(" | ")] for line in block.splitlines()]
        found.append((rows[0], rows[2:]))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_a_study_leaves_the_figures_that_its_data_supports(kind, written):
    folder, paths, _ = written(kind)
    reports = REPORTS | ({"learning_curves.json"} if kind == "sizes" else set())
    assert (
        {path.name for path in paths} == {path.name for path in folder.iterdir()} == EXPECTED[kind] | reports
    )
    markdown, page = read(folder)
    assert set(re.findall(r"\]\((\w+\.png)\)", markdown)) == EXPECTED[kind]
    assert sum(tag == "img" for tag, _ in page.tags) == len(EXPECTED[kind])


@pytest.mark.parametrize("kind", KINDS)
def test_the_page_needs_nothing_else(kind, written):
    text = (written(kind)[0] / "report.html").read_text()
    page = Page(text)
    links = [
        value
        for _, attributes in page.tags
        for name, value in attributes.items()
        if name in ("src", "href", "srcset")
    ]
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links)
    assert not {"script", "link", "iframe", "object", "base"} & {tag for tag, _ in page.tags}
    assert "url(" not in text and "@import" not in text and "http://" not in text and "https://" not in text
    ids = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    assert {link[1:] for link in links if link.startswith("#")} <= ids
    assert all(attributes.get("alt") for tag, attributes in page.tags if tag == "img")
    for need in ("prefers-color-scheme: dark", "@media print", 'name="viewport"', "overflow-x: auto"):
        assert need in text


def test_the_table_holds_means_intervals_and_costs(written):
    folder, _, (study, runs, _, scores) = written("techniques")
    markdown, page = read(folder)
    header, rows = md_tables(markdown)[0]
    assert header[:4] == ["configuration", "seeds", "validation F1", "test F1 [95%]"]
    assert {"test EM", "trained", "time", "memory MiB", "adapter MiB"} <= set(header)
    by_name = {row[0]: dict(zip(header, row, strict=True)) for row in rows}
    mine = runs[runs["technique"] == "LoRA"]
    assert by_name["LoRA"]["seeds"] == "3"
    assert by_name["LoRA"]["validation F1"] == f"{mine['best_validation_f1'].mean():.1f}"
    mean = 100 * np.mean([scores[run]["f1"] for run in mine["run_id"]])
    assert by_name["LoRA"]["test F1 [95%]"].startswith(f"{mean:.1f} [")
    assert (
        by_name["LoRA"]["trained"].startswith("665,000 (2.9%)") and "(100%)" in by_name["Standard"]["trained"]
    )
    assert by_name["LoRA"]["adapter MiB"] == "2.54"
    order = runs.groupby("technique")["best_validation_f1"].mean().sort_values(ascending=False).index
    assert [row[0] for row in rows] == list(order)
    # Both reports say the same.
    assert page.tables[0][1:] == rows


def test_the_interval_of_a_configuration_is_that_of_its_seeds_and_examples():
    study, runs, _, scores = KINDS["techniques"]()
    table = configurations(study, tidy(study, runs), scores)
    each, spread = matrices(table, scores, "f1")
    assert spread.freedom == 12 and each[1].shape == (3, 400)
    assert (table["low"][1], table["high"][1]) == pytest.approx(interval(each[1], spread))
    assert list(table["method"].unique()) == ["seeds"]
    tests = comparisons(study, table, scores)
    assert len(tests) == 15
    first = tests.iloc[0]
    found = paired_difference(each[int(first["a"])], each[int(first["b"])], spread)
    assert first["p"] == found["p"] and abs(first["difference"] - found["difference"]) < 1e-9
    assert (tests["difference"] >= 0).all()
    assert (tests["p_holm"] >= tests["p"]).all()
    # The smallest of 15 is multiplied by 15.
    assert tests["p_holm"].min() == pytest.approx(15 * tests["p"].min())


def test_what_differs_is_told_apart_from_what_does_not(written):
    folder, _, (study, runs, _, scores) = written("techniques")
    header, rows = md_tables(read(folder)[0])[1]
    assert header[:4] == ["comparison", "points [95%]", "p", "p, Holm"]
    table = configurations(study, tidy(study, runs), scores)
    tests = comparisons(study, table, scores)
    differ = {
        f"{table['label'][a]} - {table['label'][b]}"
        for a, b, p in tests[["a", "b", "p_holm"]].itertuples(index=False)
        if p < 0.05
    }
    assert {row[0] for row in rows if row[4] == "differ"} == differ and 0 < len(differ) < 15
    markdown = read(folder)[0]
    assert f"{len(differ)} of 15 comparisons are significant" in markdown
    assert table["label"][best(table)] + " is best by validation: test F1" in markdown


def test_one_seed_says_so(written):
    markdown, _ = read(written("generative")[0])
    assert "with one seed the spread between seeds is unknown" in markdown
    markdown, _ = read(written("techniques")[0])
    assert "cover other test examples and other seeds" in markdown and "is unknown" not in markdown


def test_sizes_are_compared_at_the_same_size():
    study, runs, _, scores = KINDS["sizes"]()
    table = configurations(study, tidy(study, runs), scores)
    pairs = {
        frozenset(pair)
        for pair in comparisons(study, table, scores)[["a", "b"]].itertuples(index=False, name=None)
    }
    assert pairs == {frozenset((i, i + 4)) for i in range(4)}
    assert table["label"][0] == "Standard, 2,000 examples"


def test_a_grid_is_compared_with_its_best_by_validation():
    study, runs, _, scores = KINDS["grid"]()
    table = configurations(study, tidy(study, runs), scores)
    tests = comparisons(study, table, scores)
    first = table["validation"].idxmax()
    assert len(tests) == 23 and all(first in pair for pair in tests[["a", "b"]].itertuples(index=False))
    assert table["label"][0] == "r 4, attention, lr 5e-4"


def test_stages_have_tables_of_their_own(written):
    folder, _, (study, *_) = written("learning_rates")
    markdown, _ = read(folder)
    assert "## Results of stage sweep" in markdown and "## Results of stage final" in markdown
    assert "## Edges of the grid" in markdown and study["edges"][0] in markdown
    assert [len(rows) for header, rows in md_tables(markdown) if header[1] == "seeds"] == [10, 2]


def test_five_examples_are_told_for_what_they_are(written):
    folder, _, (study, runs, _, scores) = written("generative")
    table = configurations(study, tidy(study, runs), scores)
    first = best(table)
    low, high = range_of_samples(matrices(table, scores, "f1")[0][first][0], 5)
    assert high - low > 50
    assert f"would score between {low:.0f} and {high:.0f} in 95 cases of 100" in read(folder)[0]


def test_what_did_not_finish_is_listed_with_its_reason(tmp_path):
    rows = [
        {"technique": "LoRA", "seed": 1},
        {
            "technique": "LoRA",
            "seed": 2,
            "status": "failed",
            "failure": "The loss is nan at step 3",
            "name": "LoRA-seed=2",
        },
        {"technique": "IA3", "status": "missing", "name": "IA3-seed=1"},
    ]
    write_report(tmp_path, make_study("s"), *make_runs(rows))
    markdown, _ = read(tmp_path)
    (rows,) = [rows for header, rows in md_tables(markdown) if header[0] == "run"]
    assert rows == [
        ["LoRA-seed=2", "2", "failed", "The loss is nan at step 3"],
        ["IA3-seed=1", "42", "missing", "not run yet"],
    ]
    assert "3 runs: 1 finished, 1 failed, 1 missing" in markdown
    (results,) = [rows for header, rows in md_tables(markdown) if header[0] == "configuration"]
    assert [row[:2] for row in results] == [["LoRA", "1 of 2"], ["IA3", "0 of 1"]]


def test_hostile_names_stay_text(tmp_path):
    evil = '<script>alert("1")</script>|`x`](javascript:alert(1)) & "'
    rows = [
        {"technique": evil, "checkpoint": evil},
        {"technique": "LoRA", "status": "failed", "failure": evil, "name": evil},
    ]
    study = make_study("s", edges=[evil]) | {"name": evil, "description": evil, "provenance": {evil: evil}}
    write_report(tmp_path, study, *make_runs(rows))
    markdown, page = read(tmp_path)
    assert "script" not in {tag for tag, _ in page.tags} and page.text.count(evil) >= 6
    assert "<script" not in markdown and "](javascript" not in markdown
    (results, *_) = md_tables(markdown.replace("\\|", "/"))
    assert all(len(row) == len(results[0]) for row in results[1])


@pytest.mark.parametrize(
    "rows",
    [
        [{"technique": "LoRA"}],
        [{"technique": "LoRA", "status": "failed", "failure": "CUDA out of memory"}],
        [{"technique": "LoRA", "training_seconds": math.nan, "test_f1": math.inf, "best_validation_f1": math.nan,
          "trainable_parameters": math.nan, "peak_memory_mib": math.nan}, {"technique": "IA3"}],
        [{"technique": f"technique {i}", "quality": 0.3 + i / 60, "seed": None} for i in range(24)],
        [],
    ],
    ids=["one run", "one failed", "not finite", "24 rows", "nothing"],
)  # fmt: skip
def test_degenerate_studies_have_a_report(rows, tmp_path):
    runs, histories, scores = make_runs(rows)
    paths = write_report(tmp_path, make_study("s", axes=["r"]), runs, histories, scores)
    assert {path.name for path in paths} >= REPORTS - {"leaderboard.json"}
    markdown, page = read(tmp_path)
    assert not re.search(r"\b(nan|inf)\b", markdown + page.text, re.I)


def test_scores_that_are_missing_or_not_finite_leave_the_measured_figures(tmp_path):
    runs, histories, scores = make_runs([{"technique": "LoRA"}, {"technique": "IA3"}, {"technique": "LoHa"}])
    scores["run0000"]["f1"][3] = math.nan
    del scores["run0001"]
    study = make_study("s")
    table = configurations(study, tidy(study, runs), scores)
    assert list(table["test"]) == pytest.approx(runs["test_f1"])
    assert (table["low"][0], table["high"][1]) == pytest.approx(
        (runs["test_f1_low"][0], runs["test_f1_high"][1])
    )
    assert comparisons(study, table, scores).empty
    write_report(tmp_path, study, runs, histories, scores)
    assert "Nothing can be compared" in read(tmp_path)[0]


def test_columns_may_be_missing_and_axes_may_be_lists(tmp_path):
    runs = pd.DataFrame(
        [
            {
                "technique": "LoRA",
                "run_id": "a",
                "targets": ["q", "v"],
                "test_f1": 50.0,
                "best_validation_f1": 51.0,
            },
            {
                "technique": "LoRA",
                "run_id": "b",
                "targets": None,
                "test_f1": 40.0,
                "best_validation_f1": 41.0,
            },
        ]
    )
    study = make_study("s", axes=["targets", "r"])
    assert list(configurations(study, tidy(study, runs), {})["label"]) == ["q, v", "LoRA"]
    write_report(tmp_path, study, runs, {}, {})
    assert "| **q, v** | **1** | **51.0** | **50.0** |" in re.sub(" +", " ", read(tmp_path)[0])


def test_runs_of_one_seed_that_only_names_tell_apart_are_configurations():
    runs, _, scores = make_runs([{"technique": "LoRA", "name": name} for name in ("short", "long")])
    study = make_study("s")
    assert list(configurations(study, tidy(study, runs), scores)["label"]) == ["LoRA, short", "LoRA, long"]


def test_an_earlier_report_leaves_no_figure_behind(tmp_path):
    for name in ("heatmap_a_b.png", "gradient_flow.png", "metric_vs_x.png", "mine.png"):
        (tmp_path / name).touch()
    write_report(tmp_path, make_study("s"), *make_runs([{"technique": "LoRA"}]))
    assert {path.name for path in tmp_path.glob("*.png")} == COSTS | CURVES | {"mine.png"}


def test_seconds_per_step_by_hand():
    runs = pd.DataFrame({"run_id": ["a", "b", "c"], "training_seconds": [50.0, 10.0, math.nan]})
    histories = {"a": [{"step": 1}, {"step": 100}], "b": [], "c": [{"step": 5}], "d": [{"step": 5}]}
    assert seconds_per_step(runs, histories) == {"a": 0.5}


@pytest.mark.parametrize(
    ("axis", "value", "text", "label"),
    [
        ("learning_rate", 1e-3, "1e-3", "lr 1e-3"),
        ("learning_rate", 2.5e-5, "2.5e-5", "lr 2.5e-5"),
        ("max_train_samples", 25000.0, "25,000", "25,000 examples"),
        ("max_train_samples", math.nan, "all", "all examples"),
        ("r", 8.0, "8", "r 8"),
        ("dropout", 0.1, "0.1", "dropout 0.1"),
        ("targets", "all linear", "all linear", "all linear"),
        ("r", None, "-", ""),
        ("bias", True, "True", "bias True"),
    ],
)
def test_values_of_axes(axis, value, text, label):
    assert (text_of(axis, value), short(axis, value)) == (text, label)
