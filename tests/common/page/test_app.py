"""The page through Flask's test client, with two real registered models."""

import json
import re
from types import SimpleNamespace

import mlflow
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.page import app
from common.page.catalogue import Catalogue, Entry
from common.scoring import squad
from tests.common.page.conftest import GOOD, NAME, URIS, ask
from tests.support import stores
from tests.support.documents import Document
from tests.support.questions import EXAMPLES

XSS = [
    "<script>alert(1)</script>",
    "</textarea><img src=x onerror=alert(1)>",
    '"><svg onload=alert(1)>',
    "{{ 7 * 7 }}{% raw %}",
    "<!--</template><b>&amp;",
    "javascript:alert('1')",
]
SCRIPTS = [
    "Marie 😀👩‍👩‍👧‍👦 Curie 🇮🇸 shared the prize e\u0301 in 1903.",
    "בשנת 1903 חלקה מארי קירי את הפרס.",
    "Marie Curie حصلت على الجائزة 1903 \u202eprize\u202c.",
    "  \n\n Marie\tCurie\r\nshared\u00a0the\u200bprize \U0001f9ea\n",
    "\U00010330\U00010331 shared \U0001d54f in 1903",
]


def test_answers_are_those_of_the_answerers(client, world):
    for example in EXAMPLES:
        asked = {name: example[name] for name in ("question", "context")}
        for received in ask(client, **asked):
            (expected,) = world[1][received["uri"]].answer([asked], top_k=app.ANSWERS)
            for found, own in zip([received, *received["alternatives"]], expected, strict=True):
                assert (found["answer"], found["start"], found["end"]) == (
                    own["answer"],
                    own["start"],
                    own["end"],
                )
                assert found["score"] == pytest.approx(own["score"], abs=1e-5)
            assert received["seconds"] > 0


def test_the_two_models_differ_or_nothing_is_compared(client):
    both = [ask(client, question=e["question"], context=e["context"]) for e in EXAMPLES]
    assert any(a["answer"] != b["answer"] for a, b in both)


def test_scores_are_the_metrics(client):
    answer = ask(client)[0]["answer"]
    for truth in (answer, f"The {answer.upper()}!", f"something else\n{answer} and more", "nothing alike"):
        golds = truth.split("\n")
        for received in ask(client, truth=truth):
            assert received["exact_match"] == squad.exact_match(received["answer"], golds)
            assert received["f1"] == squad.f1(received["answer"], golds)
    for received in ask(client, unanswerable=True):
        assert received["exact_match"] == float(received["answer"] == "")
    assert "f1" not in ask(client)[0]


@given(st.data())
def test_pieces_are_the_context_and_mark_what_they_should(drawn):
    context = drawn.draw(st.text(alphabet="aé 😀ש\u0301\n.", min_size=1, max_size=30))
    start = drawn.draw(st.integers(-1, len(context) - 1))
    end = drawn.draw(st.integers(start + 1, len(context))) if start >= 0 else -1
    truths = drawn.draw(st.lists(st.text(alphabet="aé😀ש.", min_size=1, max_size=3), max_size=2))
    cut = app.pieces(context, (start, end), truths)
    assert "".join(text for text, _, _ in cut) == context
    assert "".join(text for text, marked, _ in cut if marked) == (context[start:end] if start >= 0 else "")
    for truth in truths:
        if re.search(rf"(?<!\w){re.escape(truth)}(?!\w)", context):
            assert truth in "".join(text if true else "\0" for text, _, true in cut)


def test_true_answers_are_marked_where_they_stand_as_words():
    cut = app.pieces("an ant and an owl (an)", (3, 9), ["an", "(an"])
    assert [text for text, _, true in cut if true] == ["an", "an", "(an"]
    assert app.pieces("", (-1, -1)) == []


@pytest.mark.parametrize("context", [*SCRIPTS, *XSS])
def test_the_place_is_marked_in_any_script(client, context):
    for received in ask(client, context=context):
        document = Document(received["html"])
        shown = document.one("div", **{"class": "context"})["text"]
        # HTML's parser reads CRLF as a line feed; so would a text area have.
        assert shown.replace("\r\n", "\n") == context.replace("\r\n", "\n")
        marked = [mark["text"] for mark in document.all("mark")]
        assert marked == ([received["answer"]] if received["start"] >= 0 else [])
        assert received["answer"] == (
            context[received["start"] : received["end"]] if received["start"] >= 0 else ""
        )


@pytest.mark.parametrize("text", XSS)
def test_whatever_is_typed_stays_text(client, text):
    fields = {"question": text, "context": f"Marie {text} Curie", "truth": text, "models": URIS}
    html = client.post("/", data=fields).text
    fragments = [received["html"] for received in ask(client, **fields)]
    clean = Document(client.post("/", data=fields | {"question": "a", "context": "b", "truth": "c"}).text)
    document = Document(html)
    for shown in (document, *map(Document, fragments)):
        assert not shown.all("img") and not shown.all("b")
        assert not [e for e in shown.elements for name in e if name.startswith("on") or name == "style"]
    assert len(document.all("script")) == len(clean.all("script")) == 1
    assert document.one("textarea", name="question")["text"].removeprefix("\n") == text
    assert document.one("textarea", name="context")["text"].removeprefix("\n") == f"Marie {text} Curie"
    assert document.one("h2", dir="auto")["text"] == text


def test_what_a_model_says_of_itself_stays_text(world):
    evil = XSS[1]

    class Stored:
        def predict(self, frame, params):
            answer = {"answer": evil, "score": 0.5, "start": 0, "end": len(evil)}
            return pd.DataFrame([answer | {"alternatives": [answer]}])

    class Listed(Catalogue):
        def entries(self):
            return [Entry(f"models:/{evil}/1", evil, (evil,), {"technique": evil, "data_name": evil})]

    shown = app.create_app(Listed(load=lambda uri: Stored())).test_client()
    html = shown.post("/", data=GOOD | {"context": evil, "models": [f"models:/{evil}/1"]}).text
    document = Document(html)
    assert document.one("p", **{"class": "given"})["text"] == evil
    assert not document.all("img") and len(document.all("script")) == 1


def test_the_form_works_without_a_script(client):
    fields = {"question": "Who?", "context": "\r\nMarie\r\nCurie", "truth": "Curie", "models": URIS}
    document = Document(client.post("/", data=fields).text)
    assert [card["data-uri"] for card in document.all("article") if "aria-busy" not in card] == URIS
    assert document.one("textarea", name="context")["text"] == "\n\nMarie\nCurie"
    for received in ask(client, **fields | {"context": "\nMarie\nCurie"}):
        shown = next(
            c for c in document.all("article", **{"data-uri": received["uri"]}) if "aria-busy" not in c
        )
        assert (received["answer"] or "No answer") in shown["text"]
        assert f"{100 * received['score']:.1f}%" in shown["text"]
        assert f"F1 {100 * received['f1']:.0f}" in shown["text"]
    checked = [box["value"] for box in document.all("input", name="models") if "checked" in box]
    assert checked == URIS


class Cautious:
    """A stored model that abstains where an error is to be kept."""

    def __init__(self, *parameters):
        specs = [SimpleNamespace(name=name) for name in parameters]
        self.metadata = SimpleNamespace(get_params_schema=lambda: specs)
        self.asked = []

    def predict(self, frame, params):
        self.asked.append(params)
        low = "max_error" in params
        answer = {
            "answer": "" if low else "Marie",
            "score": 0.3,
            "start": -1 if low else 0,
            "end": -1 if low else 5,
        }
        return pd.DataFrame([answer | {"alternatives": []} | ({"abstained": True} if low else {})])


def cautious(*parameters):
    """(client of a page with one such model, the model)."""
    model = Cautious(*parameters)

    class Listed(Catalogue):
        def entries(self):
            return [Entry("models:/m/1", "Version 1", (), {})]

    return app.create_app(Listed(load=lambda uri: model)).test_client(), model


def test_a_model_abstains_where_an_error_is_allowed():
    client, model = cautious("top_k", "max_error")
    fields = GOOD | {"context": "Marie Curie", "truth": "Marie", "models": ["models:/m/1"]}
    (received,) = ask(client, **fields, max_error="0.1")
    assert (received["abstained"], received["answer"]) == (True, "") and "f1" not in received
    assert "Abstained" in received["html"] and "Not sure enough for an error of 10%" in received["html"]
    assert model.asked[-1] == {"top_k": app.ANSWERS, "max_error": 0.1}
    # The form without a script; the choice stays.
    document = Document(client.post("/", data=fields | {"max_error": "0.1"}).text)
    assert document.one("p", **{"class": "given"})["text"] == "Abstained"
    (chosen,) = [option for option in document.all("option") if "selected" in option]
    assert chosen["value"] == "0.1" and len(document.all("option")) == 6
    for anything in ({}, {"max_error": ""}, {"max_error": None}):
        (received,) = ask(client, **fields, **anything)
        assert (
            "abstained" not in received and received["f1"] == 1 and model.asked[-1] == {"top_k": app.ANSWERS}
        )


def test_a_model_that_promises_nothing_is_asked_for_no_promise(client):
    old, _ = cautious("top_k")
    (received,) = ask(old, models=["models:/m/1"], max_error=0.1)
    assert "earlier version" in received["error"] and "earlier version" in received["html"]
    for received in ask(client, max_error=0.1):
        assert "cannot promise" in received["error"]


@pytest.mark.parametrize("value", ["much", 0, 1, "1.5", [0.1], -0.1, "nan", True])
def test_an_allowed_error_is_a_share(client, value):
    answer = client.post("/answer", json=GOOD | {"max_error": value})
    assert answer.status_code == 400 and answer.get_json()["field"] == "max_error"


def test_the_card_tells_what_the_store_knows(client, world):
    received = ask(client)[0]["html"]
    tags = mlflow.MlflowClient().get_model_version(NAME, "1").tags
    share = float(tags["trainable_parameters"]) / float(tags["total_parameters"])
    for text in (
        "champion",
        tags["technique"],
        f"{share:.2%}",
        "40.0 (35.0 to 45.0)",
        f"{int(tags['total_parameters']):,}",
    ):
        assert text in received
    assert app.facts(Entry("runs:/0/model", "Run 0", (), {})) == []


def test_examples_fill_the_form_and_have_answers(client):
    made = app.examples()
    assert sum(e["unanswerable"] for e in made) == 1 and max(len(e["context"]) for e in made) > 2_000
    for example in made:
        assert bool(example["truth"]) != example["unanswerable"]
        assert all(truth in example["context"] for truth in example["truth"].split("\n"))
        assert not squad.normalize_answer(example["question"]) == ""
        shown = client.get("/", query_string={"example": example["name"]}).text
        assert Document(shown).one("textarea", name="question")["text"].strip() == example["question"]
        link = Document(shown).one("a", href=f"/?example={example['name'].replace(' ', '+')}")
        assert json.loads(link["data-example"]) == example


def test_a_model_that_does_not_load_is_shown_beside_the_others(world):
    missing = f"runs:/{world[0]}/nothing"
    client = app.create_app(Catalogue([URIS[0], missing])).test_client()
    good, bad = ask(client, models=[URIS[0], missing])
    assert good["answer"] is not None and "answer" not in bad
    assert "nothing" in bad["error"] and "could not answer" in bad["html"]
    document = Document(client.post("/", data=GOOD | {"models": [URIS[0], missing]}).text)
    assert len([e for e in document.all("article") if "failed" in e["class"]]) == 1
    assert len(document.all("p", **{"class": "given"})) == 1


def test_a_page_without_models_says_what_to_do(tmp_path):
    with stores.in_force(tmp_path):
        client = app.create_app(Catalogue()).test_client()
        assert "scripts/register_best.py" in Document(client.get("/").text).one("p", id="fault")["text"]
        answer = client.post("/answer", json=GOOD)
        assert answer.status_code == 503 and "scripts/register_best.py" in answer.get_json()["error"]


def test_a_fault_of_the_page_itself_is_no_traceback(world, monkeypatch):
    client = app.create_app(Catalogue()).test_client()
    monkeypatch.setattr(app, "result", lambda *_: 1 / 0)
    for answer in (client.post("/answer", json=GOOD), client.post("/", data=GOOD)):
        assert answer.status_code == 500
        assert "terminal" in answer.text and "Zero" not in answer.text


def test_a_question_that_waits_too_long_is_refused(world):
    waiting = Catalogue(patience=0.01)
    client = app.create_app(waiting).test_client()
    with waiting._turn:
        answer = client.post("/answer", json=GOOD)
    assert answer.status_code == 503 and "later" in answer.get_json()["error"]
    assert ask(client)[0]["answer"] is not None
