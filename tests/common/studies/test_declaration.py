"""What a study's file may say, which rows it makes, and how each mistake is named."""

import re

import pytest

from common.errors import UserError
from common.studies import declaration
from common.training import command_line
from tests.support.declarations import SMALL, parse, rows, size
from tests.support.techniques import TECHNIQUES

SWEEP = SMALL | {
    "techniques": {"lora": {"r": 4}, "ia3": None},
    "stages": {
        "sweep": {
            "base": {"max_train_samples": "10%"},
            "techniques": {"lora": {"grid": {"learning_rate": [1e-3, 1e-2]}}},
            "seeds": [1],
        },
        "full": {"best_of": "sweep", "seeds": [1, 2]},
    },
}


def names(*args, **kwargs):
    return [row.name for row in rows(*args, **kwargs)]


def test_techniques_grid_and_seeds_are_crossed_in_the_order_of_declaration():
    content = SMALL | {"grid": {"learning_rate": [0.001, 0.01], "batch_size": [8, 16]}, "seeds": [7, 8]}
    found = rows(content)
    assert len(found) == 2 * 4 * 2
    assert [row.name for row in found[:3]] == [
        "lora-learning_rate=0.001-batch_size=8-seed=7",
        "lora-learning_rate=0.001-batch_size=8-seed=8",
        "lora-learning_rate=0.001-batch_size=16-seed=7",
    ]
    assert len({row.name for row in found}) == len(found)
    first = found[0]
    assert (first.technique, first.args.batch_size, first.args.seed) == (
        TECHNIQUES["lora"](learning_rate=0.001),
        8,
        7,
    )
    assert first.point == {"learning_rate": 0.001, "batch_size": 8}
    assert {type(row.technique) for row in found[8:]} == {TECHNIQUES["ia3"]}


def test_a_study_without_grid_or_seeds_is_a_row_for_each_technique():
    assert names(SMALL) == ["lora-seed=42", "ia3-seed=42"]


def test_the_nearer_declaration_wins():
    content = SMALL | {
        "base": {"batch_size": 4, "num_train_epochs": 1, "learning_rate": 0.5},
        "techniques": {"lora": {"learning_rate": 0.25}, "ia3": {"batch_size": 2}},
        "grid": {"weight_decay": [0.1]},
        "stages": {
            "a": {},
            "b": {"base": {"learning_rate": 0.125}, "techniques": {"ia3": {"grid": {"weight_decay": [0.2]}}}},
        },
    }
    lora, ia3 = rows(content)
    assert (lora["batch_size"], lora["learning_rate"], lora["num_train_epochs"]) == (4, 0.25, 1.0)
    assert (ia3["batch_size"], ia3["learning_rate"], ia3["weight_decay"]) == (2, 0.5, 0.1)
    lora, ia3 = rows(content, stage=1)
    assert (lora["learning_rate"], lora["weight_decay"]) == (0.125, 0.1)
    assert (ia3["learning_rate"], ia3["weight_decay"]) == (0.125, 0.2)
    assert lora.name == "b-lora-weight_decay=0.1-seed=42"


def test_numbers_are_read_as_people_write_them():
    """YAML 1.1 takes 1e-3 for a text and 3 for a whole number."""
    (row,) = rows(
        SMALL | {"techniques": ["lora"], "base": {"learning_rate": "1e-3", "num_train_epochs": 3, "r": 8}}
    )
    assert row.technique == TECHNIQUES["lora"](learning_rate=0.001, num_train_epochs=3.0, r=8)
    assert type(row.technique.num_train_epochs) is float


def test_a_share_is_of_the_split_it_limits():
    (row, _) = rows(
        SMALL
        | {"base": {"max_train_samples": "10%", "max_test_samples": "50 %", "max_validation_samples": 3}}
    )
    args = row.args
    assert (args.max_train_samples, args.max_test_samples, args.max_validation_samples) == (100, 100, 3)
    swept = rows(SMALL | {"techniques": ["lora"], "grid": {"max_train_samples": ["0.01%", "100%", None]}})
    assert [row["max_train_samples"] for row in swept] == [1, 1000, None]


def test_a_later_stage_takes_the_best_point_and_the_seeds_of_its_own():
    best = {"lora": {"learning_rate": 0.01}}
    assert names(SWEEP) == [
        "sweep-lora-learning_rate=0.001-seed=1",
        "sweep-lora-learning_rate=0.01-seed=1",
        "sweep-ia3-seed=1",
    ]
    full = rows(SWEEP, stage=1, best=best | {"ia3": {}})
    assert [row.name for row in full] == [
        "full-lora-learning_rate=0.01-seed=1",
        "full-lora-learning_rate=0.01-seed=2",
        "full-ia3-seed=1",
        "full-ia3-seed=2",
    ]
    assert (full[0]["learning_rate"], full[0]["r"], full[0]["max_train_samples"]) == (0.01, 4, None)


def test_before_the_sweep_every_point_that_may_come_is_a_row():
    assert names(SWEEP, stage=1)[:4] == [
        f"full-lora-learning_rate={rate}-seed={seed}" for rate in (0.001, 0.01) for seed in (1, 2)
    ]


def test_a_technique_that_failed_its_sweep_has_no_rows_and_one_that_was_not_swept_has():
    assert names(SWEEP, stage=1, best={"ia3": {}}) == ["full-ia3-seed=1", "full-ia3-seed=2"]
    content = SWEEP | {"stages": {**SWEEP["stages"], "sweep": {"techniques": ["lora"]}}}
    assert names(content, stage=1, best={"lora": {}}) == [
        "full-lora-seed=1", "full-lora-seed=2", "full-ia3-seed=1", "full-ia3-seed=2",
    ]  # fmt: skip


def test_a_later_stage_may_vary_other_fields():
    content = SWEEP | {"stages": {**SWEEP["stages"]}}
    content["stages"]["full"] = {"best_of": "sweep", "grid": {"max_train_samples": [10, 20]}, "seeds": [1]}
    assert names(content, stage=1, best={"lora": {"learning_rate": 0.01}}) == [
        "full-lora-learning_rate=0.01-max_train_samples=10-seed=1",
        "full-lora-learning_rate=0.01-max_train_samples=20-seed=1",
    ]
    assert parse(content).axes == ["learning_rate", "max_train_samples"]


def test_the_smoke_section_lies_over_the_rest():
    content = SWEEP | {
        "base": {"batch_size": 16, "max_length": 128},
        "smoke": {
            "base": {"batch_size": 2},
            "techniques": ["lora"],
            "stages": {"sweep": {"base": {"max_train_samples": 5}}, "full": {"seeds": [3]}},
        },
    }
    assert parse(content).name == "small" and rows(content)[0]["batch_size"] == 16
    study = parse(content, smoke=True)
    assert study.name == "small-smoke"
    (first, second) = rows(content, smoke=True)
    assert (first["batch_size"], first["max_length"], first["max_train_samples"], first["r"]) == (
        2,
        128,
        5,
        4,
    )
    assert names(content, stage=1, best={"lora": {}}, smoke=True) == ["full-lora-seed=3"]
    with pytest.raises(UserError, match="has no `smoke` section"):
        parse(SMALL, smoke=True)
    with pytest.raises(UserError, match="techniques lists .'lora': 3.; map techniques"):
        parse(content | {"smoke": {"techniques": [{"lora": 3}]}}, smoke=True)
    with pytest.raises(UserError, match="smoke cannot hold 'name'"):
        parse(SMALL | {"smoke": {"name": "other"}})


NAMED = SMALL | {
    "techniques": {
        "lora": {"grid": {"learning_rate": [1e-3]}},
        "LoRA, attention only": {
            "technique": "lora",
            "targets": "attention",
            "grid": {"learning_rate": [1e-2]},
        },
    },
    "stages": {"sweep": {}, "full": {"best_of": "sweep", "techniques": ["LoRA, attention only"]}},
}


def test_a_technique_may_stand_under_names_of_its_own():
    plain, named = rows(NAMED)
    assert plain.name == "sweep-lora-learning_rate=0.001-seed=42" and plain.title == "LoRA"
    assert named.name == "sweep-LoRA_attention_only-learning_rate=0.01-seed=42"
    assert (named.entry, named.title) == ("LoRA, attention only", "LoRA, attention only")
    assert named.technique == TECHNIQUES["lora"](targets="attention", learning_rate=0.01)
    assert plain.technique.targets == "all"
    (full,) = rows(NAMED, stage=1, best={"lora": {}, "LoRA, attention only": {"learning_rate": 0.5}})
    assert (full.entry, full["learning_rate"], full["targets"]) == ("LoRA, attention only", 0.5, "attention")


def test_a_smoke_section_chooses_among_names():
    content = NAMED | {"smoke": {"techniques": ["LoRA, attention only"]}}
    assert [row.title for row in rows(content, smoke=True)] == ["LoRA, attention only"]


def with_techniques(**techniques):
    return {"techniques": {name.replace("_", " "): own for name, own in techniques.items()}}


def within_stage(**stage):
    return {"stages": {"sweep": {}, "full": stage}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": None}, "name is None; it must be letters"),
        ({"name": "a/b"}, "name is 'a/b'; it must be letters"),
        ({"description": " "}, "description is ' '; it must be a text that is not empty"),
        ({"tecniques": []}, "tecniques is not known here (did you mean techniques?)"),
        ({"best_of": "sweep"}, "best_of is not known here; choose from base, grid,"),
        ({3: "sweep"}, "3 is not known here; choose from base, grid,"),
        ({"techniques": []}, "techniques names none; choose from standard"),
        ({"techniques": "lora"}, "techniques is 'lora'; it must be a list of techniques"),
        ({"techniques": [{"lora": {"r": 4}}]}, "techniques lists {'lora': {'r': 4}}; map techniques"),
        ({"techniques": ["lorra"]}, "techniques.lorra is no technique (did you mean lora?); there are standard"),
        ({"techniques": {"lora": 3}}, "techniques.lora is 3; it must hold"),
        ({"techniques": {"lora": {"rr": 3}}}, "techniques.lora.rr is not a field (did you mean r?)"),
        ({"base": {"batchsize": 3}}, "base.batchsize is not a field (did you mean batch_size?)"),
        ({"base": {"r": 3}}, "base.r is not a field of ia3; set it below `techniques`, lora"),
        ({"grid": {"r": [3]}}, "grid.r is not a field of ia3"),
        ({"base": {"batch_size": 8.5}}, "base.batch_size is 8.5; it must be a whole number"),
        ({"base": {"batch_size": True}}, "batch_size is True; it must be a whole number"),
        ({"base": {"batch_size": None}}, "batch_size is None; it must be a whole number"),
        ({"base": {"max_train_samples": "110%"}}, "a whole number, or a share of the data such as 10%"),
        ({"base": {"learning_rate": "fast"}}, "learning_rate is 'fast'; it must be a number"),
        ({"base": {"learning_rate": False}}, "learning_rate is False; it must be a number"),
        ({"base": {"model_checkpoint": 5}}, "model_checkpoint is 5; it must be a text"),
        ({"base": {"gradient_norms": "yes"}}, "must be true or false"),
        ({"base": ["batch_size"]}, "base is ['batch_size']; it must hold"),
        ({"base": {"seed": 3}}, "base.seed is not for a row to set: list it under `seeds`"),
        ({"base": {"resume": True}}, "resume is not for a row to set"),
        ({"grid": {"learning_rate": []}}, "grid.learning_rate is []; it must be a list of at least one value"),
        ({"grid": {"learning_rate": 0.1}}, "it must be a list of at least one value"),
        ({"grid": {"learning_rate": ["1e-1", 0.1]}}, "grid.learning_rate lists a value twice: ['1e-1', 0.1]"),
        ({"grid": {"task": ["extractive-qa"]}}, "grid.task cannot vary"),
        ({"seeds": []}, "seeds is []; it must be a list of at least one value"),
        ({"seeds": [1, 1]}, "seeds lists a value twice"),
        ({"seeds": ["a"]}, "seeds.0 is 'a'; it must be a whole number"),
        ({"stop": {"wen": "decided"}}, "stop.wen is not known here (did you mean when?)"),
        ({"stop": {"when": "decidet"}}, "stop.when is 'decidet'; it must be decided or never"),
        ({"stop": {"smallest_difference": -1}}, "stop.smallest_difference is -1; it must be a number of points from 0"),
        ({"stop": {"error": 0}}, "stop.error is 0; it must be above 0 and up to 0.5"),
        ({"stop": "decided"}, "stop is 'decided'; it must be such as {when: decided, smallest_difference: 1.0}"),
        ({"stop": {}}, "stop leaves out seeds, and no stage that it holds for has more than one; list two or more under `seeds`"),
        (within_stage(stop={}), "stages.full.stop leaves out seeds, and no stage that it holds for has more than one"),
        ({"stages": {}}, "stages is {}; it must map"),
        ({"stages": {1: {}, "1": {"best_of": "1"}}}, "stages names '1' twice; give each stage a name of its own"),
        (with_techniques(LoRA_again={"technique": "lorra"}), "LoRA again'.technique is 'lorra': it is no technique (did you mean lora?)"),
        (with_techniques(LoRA_again={"technique": 3}), "LoRA again'.technique is 3; it must be the key of a technique"),
        (with_techniques(LoRA_again={"r": 3}), "'LoRA again' is no technique"),
        (with_techniques(ia3={"technique": "lora"}), "techniques.ia3 is lora under the key of another technique; name it otherwise"),
        ({"techniques": {"a/b": {"technique": "lora"}}}, "techniques.'a/b' is no name; take up to 60 letters"),
        ({"techniques": {"a b": {"technique": "lora"}, "a:b": {"technique": "lora"}}}, "'a:b' is too much like 'a b' for the names of folders"),
        (with_techniques(LoRA_again={"technique": "lora", "rr": 3}), "'LoRA again'.rr is not a field (did you mean r?)"),
        (with_techniques(lora={"technique": "lora", "r": 0}), "techniques.lora.r is 0 for lora; it must be at least 1"),
        (within_stage(techniques={"lora": {"technique": "lora"}}), "stages.full.techniques.lora.technique is set among the study's own `techniques`, once"),
        (within_stage(techniques={"other": {"technique": "lora"}}), "stages.full.techniques.other is not among the study's own"),
        (within_stage(best_off="sweep"), "stages.full.best_off is not known here (did you mean best_of?)"),
        (within_stage(best_of="full"), "stages.full.best_of is 'full'; it must name a stage above"),
        (within_stage(techniques=["standard"]), "stages.full.techniques.standard is not among the study's own `techniques`"),
        (within_stage(base={"task": "classification"}), "task must be one for the whole study, not classification, extractive-qa"),
    ],
)  # fmt: skip
def test_a_mistake_is_named_with_its_place_and_its_remedy(change, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        parse(SMALL | change)
    assert str(error.value).startswith("s.yaml") and "\n" not in str(error.value)


def test_every_fault_is_listed_and_those_of_sections_first():
    content = SMALL | {
        "base": {"batch_size": 0, "rr": 3},
        "grid": {"learning_rate": ["slow", 0.1, -1]},
        "seeds": [1, "a"],
        "resources": {"cpus": 0, "memory": 3},
        "stages": {"sweep": {}, "full": {"best_of": "swep", "base": {"doc_stride": -1}, "seed": [1]}},
    }
    with pytest.raises(UserError) as error:
        parse(content)
    first, *faults = str(error.value).split("\n")
    places = ["seeds.1", "resources.cpus", "resources.memory", "stages.full.seed"]
    assert first == "s.yaml has 4 faults:" and sorted(f.split()[0] for f in faults) == sorted(places)
    del content["seeds"], content["resources"], content["stages"]["full"]["seed"]
    with pytest.raises(UserError) as error:
        parse(content)
    assert str(error.value).split("\n") == [
        "s.yaml has 5 faults:",
        "  base.batch_size is 0 for lora; it must be at least 1 and at most 1000000.",
        "  base.rr is not a field (did you mean r?); the scripts' --help lists them.",
        "  grid.learning_rate.0 is 'slow'; it must be a number.",
        "  grid.learning_rate.2 is -1 for lora; it must be above 0 and at most 1e+30.",
        "  stages.full.base.doc_stride is -1 for lora; it must be at least 0 and at most 1000000.",
    ]


def test_an_axis_that_a_sweep_decides_cannot_be_varied_again():
    content = SWEEP | {"stages": {**SWEEP["stages"]}}
    content["stages"]["full"] = {"best_of": "sweep", "techniques": {"lora": {"grid": {"learning_rate": [1]}}}}
    with pytest.raises(UserError, match="stages.full.learning_rate is decided by best_of: 'sweep'"):
        parse(content)


def test_a_value_that_a_technique_refuses_is_named_with_its_place():
    content = SMALL | {"techniques": {"lora": {"grid": {"targets": ["all", "feet"]}}}}
    with pytest.raises(
        UserError, match="techniques.lora.grid.targets.1 is 'feet' for lora; it must be one of"
    ):
        rows(content)


@pytest.mark.parametrize("text", ["a: [", "- a", "", "a: \x00", "a: 2020-13-01"])
def test_a_file_that_is_no_mapping_is_named(tmp_path, text):
    file = tmp_path / "s.yaml"
    file.write_text(text)
    with pytest.raises(UserError, match=re.escape(str(file))):
        declaration.read(file, TECHNIQUES)
    with pytest.raises(UserError, match="No such file"):
        declaration.read(tmp_path / "none.yaml", TECHNIQUES)


def test_types_are_those_declared_even_after_a_command_line_was_parsed():
    """transformers' parser would write int over int | None in the dataclass's own fields."""
    command_line.parse(TECHNIQUES["lora"], [])
    content = SMALL | {"base": {"report_to": ["mlflow"]}, "techniques": ["lora"]}
    found = parse(content | {"grid": {"max_train_samples": [5, None]}})
    assert [row.args.max_train_samples for row in declaration.expand(found, found.stages[0], size)] == [
        5,
        None,
    ]
    with pytest.raises(UserError, match="base.report_to is 'wandb'; it must be a list"):
        parse(content | {"base": {"report_to": "wandb"}})
