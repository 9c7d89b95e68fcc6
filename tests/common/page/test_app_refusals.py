"""What the page refuses, and what protects it: bad questions and bodies, other sites, other host names."""

import hashlib
import json
import re

import pytest

from common.api_keys import Keys
from common.page import app
from common.page.catalogue import Catalogue
from tests.common.page.conftest import GOOD
from tests.support.documents import Document

REFUSED = {
    "empty question": ({"question": " \n"}, "question is empty"),
    "empty context": ({"context": ""}, "context is empty"),
    "long question": ({"question": "w" * 2_001}, "2,001 characters; at most 2,000"),
    "long context": ({"context": "w" * 50_001}, "50,001 characters; at most 50,000"),
    "long truth": ({"truth": "w" * 2_001}, "true answer has 2,001"),
    "truth and none": ({"truth": "Curie", "unanswerable": "yes"}, "clear one of the two"),
    "truth without words": ({"truth": "the ..."}, "no word that counts"),
    "no model": ({"models": []}, "Choose a model"),
    "unlisted model": ({"models": ["models:/other/1"]}, "not listed any more"),
    "path as a model": ({"models": ["../../etc/passwd"]}, "not listed any more"),
    "too many models": ({"models": [f"models:/x/{i}" for i in range(7)]}, "at most 6"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_bad_question_is_refused_on_either_way(client, name):
    fields, reason = REFUSED[name]
    answer = client.post("/answer", json=GOOD | fields)
    assert answer.status_code == 400 and reason in answer.get_json()["error"]
    assert answer.get_json()["field"] in ("question", "context", "truth", "models")
    answer = client.post("/", data=GOOD | fields)
    document = Document(answer.text)
    assert answer.status_code == 400 and reason in document.one("p", id="fault")["text"]
    assert "hidden" not in document.one("p", id="fault")
    assert document.one("textarea", name="context")["text"].removeprefix("\n") == (GOOD | fields)["context"]
    assert not [e for e in document.all("article") if "aria-busy" not in e]


BODIES = {
    "no JSON": (b"{", "application/json", 400),
    "no object": (b"[1]", "application/json", 400),
    "null": (b"null", "application/json", 400),
    "deep": (b"[" * 200_000, "application/json", 400),
    "number": (json.dumps(GOOD | {"question": 5}).encode(), "application/json", 400),
    "lone surrogate": (json.dumps(GOOD | {"context": "\ud800"}).encode(), "application/json", 400),
    "unanswerable as text": (json.dumps(GOOD | {"unanswerable": "false"}).encode(), "application/json", 400),
    "models no list": (json.dumps(GOOD | {"models": "x"}).encode(), "application/json", 400),
    "models of numbers": (json.dumps(GOOD | {"models": [[1]]}).encode(), "application/json", 400),
    "as text": (json.dumps(GOOD).encode(), "text/plain", 415),
    "as form": (b"question=a", "application/x-www-form-urlencoded", 415),
    "large": (b" " * 1_000_001, "application/json", 413),
}


@pytest.mark.parametrize("name", BODIES)
def test_bad_bodies_get_a_plain_reason(client, name):
    body, kind, status = BODIES[name]
    answer = client.post("/answer", data=body, content_type=kind)
    assert answer.status_code == status
    assert 0 < len(answer.get_json()["error"]) < 200 and "Traceback" not in answer.text


def test_a_large_form_gets_a_plain_reason(client):
    for body in (b"context=" + b"w" * 1_000_001, b"context=" + b"%F0%9F%98%80" * 90_000):
        answer = client.post("/", data=body, content_type="application/x-www-form-urlencoded")
        assert (
            answer.status_code == 413
            and "1,000,000 bytes" in Document(answer.text).one("p", role="alert")["text"]
        )


def test_the_longest_texts_that_are_taken_fit_into_a_body():
    assert 12 * (app.MAX_CONTEXT + app.MAX_QUESTION + app.MAX_TRUTH) + 10_000 < app.MAX_BODY


def responses(client):
    yield client.get("/")
    yield client.get("/static/page.js")
    yield client.get("/nowhere")
    yield client.get("/answer")
    yield client.post("/", data={})
    yield client.post("/answer", json=GOOD)
    yield client.post("/answer", data=b" " * 1_000_001, content_type="application/json")
    yield client.get("/", headers={"Host": "evil.example"})


def test_every_response_is_protected(client):
    statuses = []
    for response in responses(client):
        statuses.append(response.status_code)
        policy = response.headers["Content-Security-Policy"]
        assert policy.startswith("default-src 'none'") and "unsafe" not in policy and "http" not in policy
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.headers["Cache-Control"] == "no-store"
    assert statuses == [200, 200, 404, 405, 400, 200, 413, 400]


def test_nothing_is_inline_and_nothing_comes_from_elsewhere(client):
    document = Document(client.post("/", data=GOOD).text)
    for element in document.elements:
        assert not [name for name in element if name.startswith("on") or name == "style"]
        for name in ("src", "href", "action"):
            assert element.get(name, "/").startswith("/")
    assert [script["text"] for script in document.all("script")] == [""] and not document.all("style")
    files = "".join(client.get(f"/static/page.{kind}").text for kind in ("css", "js"))
    assert "//" not in re.sub(r"^// .*|^\s+// .*", "", files, flags=re.M) and "@import" not in files


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "localhost@evil.example", "10.0.0.1:5002"]
)
def test_other_host_names_are_refused(client, host):
    for answer in (
        client.get("/", headers={"Host": host}),
        client.get("/static/page.js", headers={"Host": host}),
        client.post("/answer", json=GOOD, headers={"Host": host}),
    ):
        assert answer.status_code == 400 and "does not answer under this name" in answer.text


def test_own_host_names_are_taken(world):
    assert (
        app.create_app(Catalogue()).test_client().get("/", headers={"Host": "localhost:5002"}).status_code
        == 200
    )
    named = app.create_app(Catalogue(), ["box.lan"]).test_client()
    assert named.get("/", headers={"Host": "box.lan:80"}).status_code == 200
    assert named.get("/", headers={"Host": "localhost"}).status_code == 400


def test_other_sites_cannot_ask(client):
    for site, status in (("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200)):
        assert client.post("/", data=GOOD, headers={"Sec-Fetch-Site": site}).status_code == status
        assert client.post("/answer", json=GOOD, headers={"Sec-Fetch-Site": site}).status_code == status
    assert client.get("/", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 200


def test_a_key_that_the_page_does_not_know_is_refused(client):
    answer = client.post("/answer", json=GOOD | {"truths": "Marie Curie"})
    assert answer.status_code == 400
    assert "'truths', which is not known; did you mean 'truth'?" in answer.json["error"]


def test_a_form_of_another_origin_is_refused(client):
    """Older browsers send no Sec-Fetch-Site; programs send neither."""
    own = "http://localhost"
    for origin, status in (
        (own, 200),
        ("http://evil.example", 403),
        ("http://localhost:81", 403),
        ("null", 403),
        ("http://[::1", 403),
        ("localhost", 403),
    ):
        assert client.post("/", data=GOOD, headers={"Origin": origin}).status_code == status
        assert client.post("/answer", json=GOOD, headers={"Origin": origin}).status_code == status


def test_the_page_is_open_under_an_ipv6_address():
    named = app.create_app(Catalogue(), ["[::1]"]).test_client()
    assert named.get("/", headers={"Host": "[::1]:5002"}).status_code == 200
    assert named.get("/", headers={"Host": "[::2]:5002"}).status_code == 400
    # Browsers shorten what was printed.
    named = app.create_app(Catalogue(), ["[::FFFF:127.0.0.1]", "[2001:db8:0:0::1]"]).test_client()
    for host in ("[::ffff:7f00:1]:5002", "[::ffff:127.0.0.1]", "[2001:db8::1]"):
        assert named.get("/", headers={"Host": host}).status_code == 200


def test_with_keys_only_their_owners_open_the_page_and_ask(client, tmp_path):
    (tmp_path / "keys").write_text(f"ann {hashlib.sha256(b'sesame').hexdigest()} 2\n")
    locked = app.create_app(Catalogue(), keys=Keys(tmp_path / "keys")).test_client()
    for answer in (locked.get("/"), locked.post("/", data=GOOD), locked.post("/answer", json=GOOD)):
        assert answer.status_code == 401 and answer.headers["WWW-Authenticate"].startswith("Basic")
        assert answer.headers["X-Frame-Options"] == "DENY"
    assert "Bearer" in locked.post("/answer", json=GOOD).get_json()["error"]
    # As a browser sends it, and as a program does.
    assert locked.get("/", auth=("anybody", "sesame")).status_code == 200
    key = {"Authorization": "Bearer sesame"}
    bad = GOOD | {"question": ""}
    assert [locked.post("/answer", json=bad, headers=key).status_code for _ in range(3)] == [400, 400, 429]
    answer = locked.post("/", data=bad, headers=key)
    assert answer.status_code == 429 and 1 <= int(answer.headers["Retry-After"]) <= 30
    assert locked.get("/", headers=key).status_code == 200 and client.get("/").status_code == 200
