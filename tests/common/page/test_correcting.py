"""Answers that are corrected on the page, through Flask's test client, with a model that says what it is told to."""

import json

import pandas as pd
import pytest

from common.data.squad_json import read_squad_json
from common.page import app, correcting
from common.page.catalogue import Catalogue, Entry
from common.page.correcting import Correcting
from common.page.corrections import Correction, Corrections
from tests.support.documents import Document

URI = "models:/m/3"
CONTEXT = "😀 Marie\nand Marie's Pierre shared it 🧪 in 1903."
ASKED = {"question": "Who shared it?", "context": CONTEXT, "models": [URI]}


class Stored:
    """Answers "Pierre"."""

    def predict(self, frame, params):
        context = frame["context"][0]
        start = context.find("Pierre")
        return pd.DataFrame(
            [{"answer": "Pierre" if start >= 0 else "", "score": 0.5, "start": start, "end": start + 6}]
        )


class Listed(Catalogue):
    def entries(self):
        return [Entry(URI, "Version 3", ("champion",), {"data_language": "de"})]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "corrections.json"


@pytest.fixture
def client(file):
    return app.create_app(Listed(load=lambda uri: Stored()), corrections=Corrections(file)).test_client()


def answered(client, **fields):
    (result,) = client.post("/answer", json=ASKED | fields).get_json()["results"]
    return result


def correct(client, **fields):
    body = {"question": ASKED["question"], "context": CONTEXT, "seal": answered(client)["seal"]} | fields
    return client.post("/correction", json={name: value for name, value in body.items() if value is not ...})


def at(text, context=CONTEXT, last=False):
    start = context.rindex(text) if last else context.index(text)
    return {"answer": text, "start": start, "end": start + len(text)}


def test_a_marked_place_is_kept_with_what_the_model_had_said(client, file):
    done = correct(client, **at("Marie", last=True))
    assert done.status_code == 200 and done.get_json()["start"] == CONTEXT.rindex("Marie")
    assert "“Marie” is the right answer" in done.get_json()["saved"]
    (example,) = read_squad_json(file).placed
    assert example["answers"] == {"text": ["Marie"], "answer_start": [CONTEXT.rindex("Marie")]}
    assert example["context"] == CONTEXT and example["language"] == "de"
    (qa,) = json.loads(file.read_text())["data"][0]["paragraphs"][0]["qas"]
    told = qa["correction"]
    assert (told["model"], told["answered"]["text"]) == (URI, "Pierre")
    assert told["answered"]["start"] == CONTEXT.index("Pierre") and told["answered"]["time"] <= told["time"]
    # Nothing of who corrected it.
    assert set(told) == {"model", "answered", "time", "times"} and "127.0.0.1" not in file.read_text()


def test_an_answer_that_stands_once_needs_no_place(client, file):
    assert correct(client, answer="in 1903").status_code == 200
    assert read_squad_json(file).placed[0]["answers"]["answer_start"] == [CONTEXT.index("in 1903")]


def test_what_counts_as_a_word_follows_the_language_of_the_models_data(client, file):
    """The one of this model is German."""
    context = "Er kam an der Küste an."
    asked = {"question": "Wo?", "context": context}

    def corrected(text):
        seal = answered(client, **asked)["seal"]
        return correct(client, **asked, seal=seal, **at(text, context))

    assert corrected("an").status_code == 200
    assert read_squad_json(file).placed[0]["answers"]["text"] == ["an"]
    refused = corrected("der")
    assert refused.status_code == 400 and "articles of this model's language" in refused.get_json()["error"]


def test_no_answer_is_a_correction_too(client, file):
    assert "does not answer it" in correct(client, unanswerable=True).get_json()["saved"]
    assert read_squad_json(file).placed[0]["answers"]["text"] == []
    again = correct(client, answer="Pierre").get_json()
    assert again["times"] == 2 and "takes the place" in again["saved"]
    assert len(read_squad_json(file).placed) == 1


REFUSED = {
    "a place in UTF-16": (
        at("in 1903") | {"start": CONTEXT.index("in 1903") + 2},
        "does not stand at this place",
    ),
    "a place from the end": ({"answer": ".", "start": -1, "end": None}, "no word that counts"),
    "a negative place": ({"answer": "1903", "start": -5, "end": -1}, "does not stand at this place"),
    "a place that is no number": (at("Pierre") | {"start": "23"}, "whole numbers"),
    "a place that is true": (at("Pierre") | {"start": True}, "whole numbers"),
    "half of a place": (at("Pierre") | {"end": None}, "whole numbers"),
    "another spelling": ({"answer": "PIERRE"}, "does not stand in the text like this"),
    "several places": ({"answer": "Marie"}, "stands in the text 2 times"),
    "nothing": ({}, "answer is empty"),
    "white space around it": (at(" in 1903"), "white space"),
    "a number as answer": ({"answer": 1903}, "must be a string"),
    "a long answer": ({"answer": "w" * 2_001}, "2,001 characters"),
    "a lone surrogate": ({"answer": "\ud83d"}, "lone surrogate"),
    "an odd mark": ({"unanswerable": "no"}, "true or false"),
    "no seal": ({"seal": ..., "answer": "Pierre"}, "ask once more"),
    "a number as seal": ({"seal": 5, "answer": "Pierre"}, "ask once more"),
    "another question": ({"question": "When?", "answer": "Pierre"}, "ask once more"),
    "another text": ({"context": CONTEXT + "!", "answer": "Pierre"}, "ask once more"),
    "an empty text": ({"context": " ", "answer": "Pierre"}, "context is empty"),
    "a long text": ({"context": "w" * 50_001, "answer": "w"}, "50,001 characters"),
    "an unknown key": ({"anser": "Pierre"}, "did you mean 'answer'"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_leaves_no_trace(client, file, name):
    fields, reason = REFUSED[name]
    done = correct(client, **fields)
    assert done.status_code == 400 and reason in done.get_json()["error"]
    assert not file.exists()


def test_a_seal_is_this_pages_own_and_covers_all_that_it_says(client, file):
    other = app.create_app(Listed(load=lambda uri: Stored()), corrections=Corrections(file)).test_client()
    seal = answered(other)["seal"]
    assert correct(client, seal=seal, answer="Pierre").status_code == 400
    assert correct(other, seal=seal, answer="Pierre").status_code == 200
    changed = ("A" if seal[5] != "A" else "B").join((seal[:5], seal[6:]))
    assert correct(other, seal=changed, answer="Pierre").status_code == 400


BODIES = {
    "no JSON": (b"{", "application/json", 400),
    "no object": (b"[1]", "application/json", 400),
    "deep": (b"[" * 200_000, "application/json", 400),
    "large": (b" " * 1_000_001, "application/json", 413),
    "a large form": (b"context=" + b"w" * 1_000_001, "application/x-www-form-urlencoded", 413),
    "text": (b"answer", "text/plain", 400),
}


@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies_get_a_plain_reason(client, file, name):
    body, kind, status = BODIES[name]
    done = client.post("/correction", data=body, content_type=kind)
    assert done.status_code == status and "Traceback" not in done.text and not file.exists()
    assert done.is_json == (kind == "application/json")


def test_the_form_works_without_a_script(client, file):
    html = client.post("/", data=ASKED | {"context": CONTEXT.replace("\n", "\r\n")}).text
    document = Document(html)
    (form,) = document.all("form", action="/correction")
    fields = {e["name"]: e["value"] for e in document.all("input", type="hidden")}
    (area,) = [e for e in document.all("textarea", name="context") if "readonly" in e]
    assert area["text"].removeprefix("\n") == CONTEXT and set(fields) == {"question", "seal"}
    # Browsers send line ends as CRLF.
    fields |= {"context": CONTEXT.replace("\n", "\r\n"), "answer": "in 1903\r\n"}
    done = client.post("/correction", data=fields)
    assert (
        done.status_code == 200 and "“in 1903” is the right answer" in Document(done.text).one("main")["text"]
    )
    assert read_squad_json(file).placed[0]["answers"]["answer_start"] == [CONTEXT.index("in 1903")]
    assert "ask once more" in client.post("/correction", data=fields | {"seal": "x"}).text
    done = client.post("/correction", data=fields | {"unanswerable": "yes"})
    assert "does not answer it" in done.text and read_squad_json(file).placed[0]["answers"]["text"] == []


def test_enter_asks_and_saves_rather_than_saying_that_there_is_no_answer(client):
    document = Document(client.post("/", data=ASKED).text)
    assert [e["text"] for e in document.all("button", type="submit")] == [
        "Ask",
        "Save",
        "The text has no answer",
    ]


def test_what_was_answered_stays_text(client):
    evil = "</textarea><img src=x onerror=alert(1)> Pierre"
    document = Document(client.post("/", data=ASKED | {"context": evil, "question": f'"{evil}'}).text)
    assert not document.all("img") and len(document.all("script")) == 1
    assert document.one("input", name="question")["value"] == f'"{evil}'
    done = correct(client, question=f'"{evil}', context=evil, answer=evil, seal=answered(client, context=evil, question=f'"{evil}')["seal"])  # fmt: skip
    assert done.status_code == 200


def test_a_page_that_keeps_no_corrections_says_so_and_takes_none(tmp_path):
    client = app.create_app(Listed(load=lambda uri: Stored())).test_client()
    assert "seal" not in answered(client)
    html = client.post("/", data=ASKED).text
    assert "/correction" not in html and "Nothing is stored" in html
    assert client.post("/correction", json={}).status_code == 404


def test_a_page_that_keeps_corrections_says_what_it_stores(client):
    footer = Document(client.get("/").text).one("footer")["text"]
    assert "Nothing is stored" not in footer and "A correction that you save is stored" in footer


def test_other_sites_cannot_correct(client, file):
    fields = {
        "question": ASKED["question"],
        "context": CONTEXT,
        "seal": answered(client)["seal"],
        "answer": "Pierre",
    }
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.example"}):
        assert client.post("/correction", json=fields, headers=headers).status_code == 403
        assert client.post("/correction", data=fields, headers=headers).status_code == 403
    assert not file.exists()


def test_too_many_in_a_minute_are_refused(file):
    taking = Correcting(Corrections(file), a_minute=2)
    page = app.create_app(Listed(load=lambda uri: Stored()))
    taking.routes(page)
    client = page.test_client()
    seal = taking.seal(Entry(URI, "", (), {}), "q", "Pierre", {"answer": "", "start": -1})
    body = {"question": "q", "context": "Pierre", "seal": seal, "answer": "Pierre"}
    assert [client.post("/correction", json=body).status_code for _ in range(3)] == [200, 200, 429]
    assert json.loads(file.read_text())["data"][0]["paragraphs"][0]["qas"][0]["correction"]["times"] == 2


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (OSError(28, "No space left on device"), 503, "terminal"),
        (correcting.Full(), 413, "full"),
        (correcting.Occupied(), 503, "try again later"),
    ],
)
def test_a_file_that_takes_nothing_is_told_without_its_name(client, file, monkeypatch, error, status, reason):
    def fails(self, correction: Correction):
        raise error

    monkeypatch.setattr(Corrections, "add", fails)
    done = correct(client, answer="Pierre")
    assert done.status_code == status and reason in done.get_json()["error"] and str(file) not in done.text
