"""Exports of annotation tools that are not in SQuAD's shape → articles in that shape."""

from typing import Any

from .columns import Columns, resolve
from .language import kept
from .question_fields import FAULT, PLACE


def is_haystack(content: Any) -> bool:
    """Whether the content is an export of documents and labels, or a list of labels that each have their document."""
    if isinstance(content, dict):
        return isinstance(content.get("documents"), list) and isinstance(content.get("labels"), list)
    first = next(iter(content), None) if isinstance(content, list) else None
    return (
        isinstance(first, dict)
        and isinstance(first.get("document"), dict)
        and ("query" in first or "question" in first)
    )


def of_haystack(content: Any, columns: Columns | None = None) -> list[Any]:
    """Documents and labels as articles of one paragraph, in the order in which the labels name the documents.

    Labels of the same question on the same document are the answers of one question; where some of them say that there is no
    answer, those that have one count. Labels that are marked as wrong (`is_correct_answer` false) are left out. Source:
    `Document` and `Label` in haystack/schema.py of deepset-ai/haystack 0.x and 1.x.
    """
    labels = content["labels"] if isinstance(content, dict) else content
    listed = content["documents"] if isinstance(content, dict) else []
    documents = {str(each.get("id")): each for each in listed if isinstance(each, dict)}
    made: list[Any] = []
    paragraphs: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {}
    for n, label in enumerate(labels):
        if not isinstance(label, dict):
            made.append({PLACE: f"label {n}", FAULT: f" must be an object, not {type(label).__name__}."})
            continue
        if label.get("is_correct_answer") is False:
            continue
        own = label.get("document")
        key = str(own.get("id") if isinstance(own, dict) else label.get("document_id"))
        document = own if isinstance(own, dict) else documents.get(key)
        if document is None:
            made.append(
                {PLACE: f"label {n}", FAULT: f" names the document {key!r}, which the file does not hold."}
            )
            continue
        if key not in paragraphs:
            context = document.get("content", document.get("text"))
            meta = document.get("meta")
            paragraphs[key] = {"context": context, "qas": [], **kept(meta), **kept(document)}, {}
            title = meta.get("name") if isinstance(meta, dict) else None
            made.append({"document_id": key, "title": title, "paragraphs": [paragraphs[key][0]]})
        _add_label(*paragraphs[key], label)
    return made


def _add_label(paragraph: dict[str, Any], questions: dict[str, Any], label: dict[str, Any]) -> None:
    question = label.get("question", label.get("query"))
    qa = questions.get(str(question))
    if qa is None:
        qa = {"id": label.get("id"), "question": question, "answers": [], **kept(label)}
        questions[str(question)] = qa
        qa["is_impossible"] = True
        paragraph["qas"].append(qa)
    answer, start = label.get("answer"), label.get("offset_start_in_doc")
    if isinstance(answer, dict):
        offsets = answer.get("offsets_in_document")
        first = offsets[0] if isinstance(offsets, list) and offsets else None
        answer, start = answer.get("answer"), first.get("start") if isinstance(first, dict) else None
    if label.get("no_answer") or answer is None or isinstance(answer, str) and not answer.strip():
        return
    qa["is_impossible"] = False
    qa["answers"].append({"text": answer, "answer_start": start})


def is_label_studio(content: Any) -> bool:
    """Whether the content is a list of Label Studio's tasks, or one task."""
    tasks = content if isinstance(content, list) else [content]
    first = next(iter(tasks), None)
    return (
        isinstance(first, dict)
        and isinstance(first.get("data"), dict)
        and ("annotations" in first or "completions" in first)
    )


def of_label_studio(content: Any, columns: Columns | None = None) -> list[Any]:
    """Tasks as articles of one paragraph: the marked spans of a text are the answers to the question in the task's `data`.

    A task whose annotators marked nothing has no answer in its text. Without a question in `data`, each span has one of its own,
    which was typed for its region. Cancelled annotations are left out. Source: labelstud.io/guide/task_format.
    """
    return [
        _of_task(n, task, columns)
        for n, task in enumerate(content if isinstance(content, list) else [content])
    ]


def _of_task(n: int, task: Any, columns: Columns | None) -> Any:
    if not isinstance(task, dict) or not isinstance(task.get("data"), dict):
        return {PLACE: f"task {n}", FAULT: " must be an object with 'data'."}
    place, data = f"task {task.get('id', n)}", task["data"]
    found = resolve(data, ("context",), columns, optional=("question", "title", "id", "language"))
    if isinstance(found, str):
        return {PLACE: place, FAULT: f"'s data{found}"}
    context, question = data[found["context"]], data.get(found.get("question"))
    listed = task.get("annotations", task.get("completions"))
    annotations = [
        each
        for each in (listed if isinstance(listed, list) else [])
        if isinstance(each, dict) and not each.get("was_cancelled")
    ]
    regions = [
        each
        for annotation in annotations
        for each in (annotation["result"] if isinstance(annotation.get("result"), list) else [])
        if isinstance(each, dict) and isinstance(each.get("value"), dict)
    ]
    id_ = data.get(found.get("id"), task.get("id", n))
    if "question" in found:
        qas = [_task_question(id_, question, context, regions, bool(annotations))]
    else:
        qas = _typed_questions(id_, regions)
    made = {PLACE: place, "title": data.get(found.get("title")), "language": data.get(found.get("language"))}
    return made | {"paragraphs": [{"context": context, "qas": qas}]}


def _task_question(
    id_: Any, question: Any, context: Any, regions: list[Any], annotated: bool
) -> dict[str, Any]:
    answers = [span for each in regions if (span := _span(each["value"], context, question))]
    made = {"id": id_, "question": question}
    # Without an annotation it is not known whether there is an answer.
    return made | ({"answers": answers, "is_impossible": not answers} if annotated else {})


def _typed_questions(id_: Any, regions: list[Any]) -> list[dict[str, Any]]:
    """A question for each span whose region has a text that was typed for it."""
    typed = {}
    for each in regions:
        text = each["value"].get("text")
        if each.get("type") == "textarea" and text:
            typed[str(each.get("id"))] = text[0] if isinstance(text, list) else text
    return [
        {"id": f"{id_}-{each.get('id')}", "question": typed.get(str(each.get("id"))), "answers": [span]}
        for each in regions
        if each.get("type") != "textarea" and (span := _span(each["value"], None, None))
    ]


def _span(value: dict[str, Any], context: Any, question: Any) -> dict[str, Any] | None:
    """A marked span as an answer; None if it is none, or one of the question's text."""
    start, end, text = value.get("start"), value.get("end"), value.get("text")
    if not isinstance(start, int) or not isinstance(end, int):
        return None
    if isinstance(context, str):
        if text is None:
            text = context[start:end]
        elif isinstance(question, str) and context[start:end] != text == question[start:end]:
            return None
    return {"text": text, "answer_start": start}
