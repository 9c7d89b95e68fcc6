"""What annotation tools export: haystack's and Label Studio's."""

import json

import pytest

from common.data.columns import parse
from common.data.question_files import read_questions
from common.errors import UserError
from tests.support.question_rows import ROWS, as_squad, save

HAYSTACK = {
    "documents": [
        {"id": "d1", "content": "Ada built the tower in 1901.", "meta": {"name": "tower.txt"}},
        {"id": 7, "text": "Bob painted it."},
    ],
    "labels": [
        {"id": "l1", "query": "Who built it?", "document_id": "d1", "answer": "Ada", "offset_start_in_doc": 0, "is_correct_answer": True, "origin": "gold_label"},
        {"id": "l2", "query": "Who built it?", "document_id": "d1", "answer": {"answer": "Ada built", "offsets_in_document": [{"start": 0, "end": 9}]}, "is_correct_answer": True},
        {"id": "l3", "query": "Who paid?", "document_id": "d1", "answer": "", "no_answer": True, "is_correct_answer": True},
        {"id": "l4", "question": "Who painted?", "document_id": 7, "answer": "Bob", "offset_start_in_doc": 0},
        {"id": "l5", "question": "Who painted?", "document_id": 7, "answer": "it", "is_correct_answer": False},
    ],
}  # fmt: skip


def test_haystacks_documents_and_labels(tmp_path):
    found = read_questions(save(tmp_path / "a.json", HAYSTACK))
    assert [(e["id"], e["title"], e["answers"]["text"]) for e in found.examples] == [
        ("l1", "tower.txt", ["Ada", "Ada built"]),
        ("l3", "tower.txt", []),
        ("l4", "a 7", ["Bob"]),
    ]
    assert found.version == "v2.0" and not found.repaired and not found.dropped
    own = [{**label, "document": HAYSTACK["documents"][0]} for label in HAYSTACK["labels"][:3]]
    again = read_questions(save(tmp_path / "b.json", own), form="haystack")
    assert [e["answers"] for e in again.examples] == [e["answers"] for e in found.examples[:2]]
    lost = HAYSTACK | {"labels": [{"query": "Who?", "document_id": "d9", "answer": "x"}, 5]}
    with pytest.raises(UserError, match="label 0 names the document 'd9'(.|\n)*label 1 must be an object"):
        read_questions(save(tmp_path / "c.json", lost))


def test_haystacks_export_in_squads_shape(tmp_path):
    content = json.loads(as_squad())
    for article in content["data"]:
        for paragraph in article["paragraphs"]:
            paragraph["document_id"] = 42
            for qa in paragraph["qas"]:
                for answer in qa["answers"]:
                    answer |= {
                        "answer_id": 7,
                        "answer_category": "SHORT",
                        "document_id": 42,
                        "question_id": 3,
                    }
    path = save(tmp_path / "a.json", content)
    assert read_questions(path, form="haystack").examples == read_questions(path).examples == ROWS


def task(n, spans, data=None, **more):
    text = "Ada built the tower. Why? Ada."
    result = [
        {"id": f"r{i}", "from_name": "answer", "to_name": "text", "type": "labels", "value": {"start": s, "end": e, "text": text[s:e], "labels": ["Answer"]}}
        for i, (s, e) in enumerate(spans)
    ]  # fmt: skip
    annotation = {"id": n, "completed_by": 1, "was_cancelled": False, "result": result}
    return {"id": n, "data": data or {"text": text, "question": "Who?"}, "annotations": [annotation]} | more


def test_label_studio(tmp_path):
    second = {
        "result": [{"type": "labels", "value": {"start": 26, "end": 29, "text": "Ada"}}],
        "was_cancelled": False,
    }
    tasks = [task(1, [(0, 3)]), task(2, []), task(3, [(0, 3), (4, 9)])]
    tasks[0]["annotations"] += [second, {"was_cancelled": True, "result": second["result"]}]
    found = read_questions(save(tmp_path / "a.json", tasks))
    assert [(e["id"], e["answers"]["text"]) for e in found.examples] == [
        ("1", ["Ada", "Ada"]),
        ("2", []),
        ("3", ["Ada", "built"]),
    ]
    assert found.examples[0]["answers"]["answer_start"] == [0, 26] and found.version == "v2.0"
    # Other names, and a task that nobody annotated.
    other = [
        task(1, [(0, 3)], {"passage": "Ada built the tower. Why? Ada.", "ask": "Who?"}),
        task(2, [], {"passage": "Bob.", "ask": "Who?"}, annotations=[]),
    ]
    with pytest.raises(UserError, match="task 2, id '2' has no 'answers'"):
        read_questions(save(tmp_path / "b.json", other), columns=parse("question=ask"))
    usable = read_questions(tmp_path / "b.json", "skip", form="label-studio", columns=parse("question=ask"))
    assert [e["question"] for e in usable.examples] == ["Who?"]


def test_label_studio_with_a_question_typed_for_each_span(tmp_path):
    typed = task(5, [(0, 3), (4, 9)], {"text": "Ada built the tower. Why? Ada."})
    typed["annotations"][0]["result"] += [
        {
            "id": "r0",
            "type": "textarea",
            "to_name": "text",
            "value": {"start": 0, "end": 3, "text": ["Who?"]},
        },
        {
            "id": "r1",
            "type": "textarea",
            "to_name": "text",
            "value": {"start": 4, "end": 9, "text": ["What?"]},
        },
    ]
    found = read_questions(save(tmp_path / "a.json", [typed]))
    assert [(e["id"], e["question"], e["answers"]["text"]) for e in found.examples] == [
        ("5-r0", "Who?", ["Ada"]),
        ("5-r1", "What?", ["built"]),
    ]
