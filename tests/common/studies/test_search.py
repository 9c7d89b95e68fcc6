"""Search spaces: what may be proposed, in which form it is trained, where a space ends, and how a study declares one."""

import math
import re

import pytest

from common.errors import UserError
from common.studies import declaration, search
from common.studies.search import Space
from tests.support.declarations import SMALL, parse, rows, size

RATE = Space("loguniform", (1e-4, 1e-2))
RANK = Space("choice", (4, 8))
HEADS = Space("int", (1, 3))


def test_proposed_numbers_have_few_digits_and_stay_within_their_bounds():
    assert RATE.settle(0.00123456) == 0.001235
    assert Space("uniform", (0.0, 0.123456)).settle(0.1234559) == 0.123456
    assert RANK.settle(8) == 8 and HEADS.settle(2) == 2


def test_corners_hold_every_bound_and_every_choice():
    found = search.corners({"lr": RATE, "r": Space("choice", (4, 8, 16))})
    assert {point["lr"] for point in found} == {1e-4, 1e-2} and {point["r"] for point in found} == {4, 8, 16}
    assert all(point not in found[:i] for i, point in enumerate(found))


def test_a_space_without_real_numbers_can_be_counted_through():
    assert (
        search.count({"r": RANK, "heads": HEADS}) == 6 and search.count({"lr": RATE, "r": RANK}) == math.inf
    )
    found = list(search.every_point({"r": RANK, "heads": HEADS}))
    assert len(found) == 6 and found[0] == {"r": 4, "heads": 1} and found[-1] == {"r": 8, "heads": 3}


@pytest.mark.parametrize(
    ("point", "is_within"),
    [
        ({"lr": 1e-4, "r": 4}, True),
        ({"lr": 2e-2, "r": 4}, False),
        ({"lr": 1e-3, "r": 5}, False),
        ({"lr": 1e-3}, False),
        ({"lr": 1e-3, "r": 4, "alpha": 8}, False),
        ({"lr": None, "r": 4}, False),
    ],
)
def test_points_of_another_space_are_not_taken_for_its_own(point, is_within):
    assert search.within(point, {"lr": RATE, "r": RANK}) is is_within


@pytest.mark.parametrize(
    ("space", "value", "end"),
    [
        (RATE, 1.2e-4, "lowest"),
        (RATE, 1.5e-4, ""),
        (RATE, 8.5e-3, "highest"),
        (Space("uniform", (0.0, 1.0)), 0.96, "highest"),
        (HEADS, 1, "lowest"),
        (HEADS, 2, ""),
        (RANK, 8, "highest"),
        (Space("choice", ("all", "attention")), "all", ""),
        (Space("choice", (None, 4)), 4, ""),
        (Space("choice", (4,)), 4, ""),
    ],
)
def test_the_ends_of_a_space(space, value, end):
    assert space.end(value) == end


SEARCH = SMALL | {
    "techniques": {
        "lora": {"search": {"learning_rate": {"loguniform": [1e-4, 1e-2]}, "r": {"choice": [4, 8]}}}
    },
    "trials": 3,
}


def test_a_search_gives_the_points_that_were_proposed_or_those_that_stand_for_them():
    study = parse(SEARCH)
    (stage,) = study.stages
    assert study.asks_for_ray == "search" and study.axes == ["learning_rate", "r"]
    assert (stage.trials, stage.scheduler, stage.resources) == (3, None, search.Resources(1, 0))
    bounds = {(row["learning_rate"], row["r"]) for row in rows(SEARCH)}
    assert bounds == {(1e-4, 4), (1e-2, 8), (1e-2, 4), (1e-4, 8)}
    proposed = {"lora": [{"learning_rate": 0.0012, "r": 8}]}
    (row,) = declaration.expand(study, stage, size, None, proposed)
    assert row.name == "lora-learning_rate=0.0012-r=8-seed=42" and row.technique.r == 8
    assert declaration.expand(study, stage, size, None, {}) == []


def test_a_later_stage_takes_the_best_of_a_search_and_none_of_its_trials_or_scheduler():
    stages = {"sweep": {"trials": 3, "scheduler": "asha"}, "full": {"best_of": "sweep", "seeds": [1, 2]}}
    content = SEARCH | {"stages": stages, "base": {"num_train_epochs": 2}}
    del content["trials"]
    study = parse(content)
    assert study.stages[0].scheduler == search.Asha(1, 3) and study.stages[1].scheduler is None
    assert not any(study.stages[1].searches.values())
    full = rows(content, stage=1, best={"lora": {"learning_rate": 0.003, "r": 4}})
    assert [row.name for row in full] == [f"full-lora-learning_rate=0.003-r=4-seed={seed}" for seed in (1, 2)]


def searching(**space):
    return {"techniques": {"lora": {"search": space}}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"trials": None}, "trials is None; it must be how many points"),
        ({"trials": 0}, "trials is 0; it must be how many points"),
        ({"techniques": ["lora"]}, "trials is for a `search`, and there is none"),
        ({"grid": {"alpha": [8]}}, "techniques.lora has both a grid and a search; write alpha into the search, as a choice"),
        ({"seeds": [1, 2]}, "seeds lists 2, and a search compares trials of one seed"),
        (searching(rr={"choice": [1]}), "techniques.lora.search.rr is not a field"),
        (searching(r=[4, 8]), "r is [4, 8]; it must be one of uniform, loguniform, int, choice"),
        (searching(r={"normal": [1, 2]}), "r is searched by 'normal'; choose one of"),
        (searching(r={"uniform": [1, 2]}), "r cannot be searched by uniform; use int or choice"),
        (searching(dropout={"int": [0, 1]}), "dropout cannot be searched by int; use uniform or loguniform or choice"),
        (searching(targets={"int": [0, 1]}), "targets cannot be searched by int; use choice"),
        (searching(targets={"choice": [3]}), "search.targets.choice.0 is 3; it must be a text"),
        (searching(r={"int": [8, 4]}), "search.r is {'int': [8, 4]}; int must have [lowest, highest]"),
        (searching(r={"int": [8]}), "int must have [lowest, highest]"),
        (searching(r={"choice": [8, 8]}), "search.r.choice lists a value twice"),
        (searching(r={"choice": 8}), "search.r.choice is 8; it must be a list"),
        (searching(dropout={"loguniform": [0, 0.5]}), "search.dropout is {'loguniform': [0, 0.5]}; its lowest value must be above 0"),
        (searching(task={"choice": ["a"]}), "task cannot vary"),
        (searching(seed={"int": [1, 9]}), "seed is not for a row to set"),
        ({"scheduler": "hyperband"}, "scheduler is 'hyperband'; it must be asha"),
        ({"scheduler": {"asha": {"grace": 1}}}, "scheduler.asha.grace is not known here; choose from grace_period, reduction_factor"),
        ({"scheduler": {"asha": {"reduction_factor": 1}}}, "scheduler.asha.reduction_factor is 1; it must be a whole number from 2"),
        ({"scheduler": "asha", "base": {"num_train_epochs": 1}}, "after 1 at the earliest, and lora trains for 1; raise"),
        ({"resources": {"cpus": 0}}, "resources.cpus is 0; it must be a whole number from 1"),
        ({"resources": {"gpus": 1.5}}, "resources.gpus is 1.5; it must be 0, a share"),
        ({"resources": {"gpus": float("nan")}}, "resources.gpus is nan; it must be 0, a share"),
        ({"resources": {"memory": 1}}, "resources.memory is not known here; choose from cpus, gpus"),
        ({"resources": 3}, "resources is 3; it must be such as {cpus: 2, gpus: 1}"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_search_is_named_too(change, message):
    with pytest.raises(UserError, match=re.escape(message)) as error:
        parse(SEARCH | change)
    assert str(error.value).startswith("s.yaml") and "\n" not in str(error.value)


def test_a_scheduler_alone_asks_for_ray_too():
    content = SMALL | {
        "scheduler": {"asha": {"grace_period": 2, "reduction_factor": 4}},
        "resources": {"cpus": 2, "gpus": 0.5},
    }
    study = parse(content | {"base": {"num_train_epochs": 3}})
    assert study.asks_for_ray == "scheduler" and study.stages[0].scheduler == search.Asha(2, 4)
    assert study.stages[0].resources == search.Resources(2, 0.5) and parse(SMALL).asks_for_ray == ""
