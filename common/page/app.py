"""The page that asks models side by side: checks of a question, what is shown of an answer, and the routes.

Nothing here changes state, so a forged request can do nothing in the reader's name; corrections do (`correcting.py`).
Requests of other sites are refused all the same, because each would keep the processor busy.
"""

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flask import Flask, Response, jsonify, render_template, request
from werkzeug.exceptions import HTTPException

from ..api_keys import Keys
from ..data.squad_json import read_squad_json
from ..errors import UserError
from ..paths import SAMPLE
from ..scoring import squad
from ..scoring.abstention import MAX_ERRORS
from ..serving.question_requests import MAX_QUESTION
from ..serving.requests import check_known
from .catalogue import KEPT, Busy, Catalogue, Entry, Reply, Unanswered
from .correcting import Correcting
from .corrections import Corrections
from .guard import (
    LOCAL,
    MAX_BODY,
    MAX_CONTEXT,
    Fault,
    checked_text,
    explain,
    host_name,
    protect,
    read_json,
    refuse_other_names,
    refuse_other_sites,
    refuse_without_key,
)

MAX_TRUTH = 2_000
FIELDS = ("question", "context", "truth", "unanswerable", "models", "max_error")

ANSWERS = 4
"""The best answer and its alternatives."""

EXAMPLES = {
    "A place": "7a998de8273b",
    "A name": "5063c5da50ac",
    "A reason": "6d13fd42bfbb",
    "No answer": "4202c6ec4c42",
    "A long text": "b44d475f690e",
}
"""Name → id of a question in the packaged sample's test part; the long text is a whole article."""


@dataclass(frozen=True)
class Asked:
    """A question that was checked."""

    question: str
    context: str
    truths: tuple[str, ...] | None
    """The true answers; empty: there is none; None: not given."""
    entries: tuple[Entry, ...]
    max_error: float | None = None
    """The share of wrong answers that is allowed; None: every question is answered."""


def checked(fields: Mapping[str, Any], entries: Sequence[Entry]) -> Asked:
    """A question from `question`, `context`, `truth` (an answer a line), `unanswerable`, `models` (URIs of entries) and
    `max_error` (a number or its text).

    Raises Fault.
    """
    try:
        check_known("The request has the key", fields, FIELDS)
    except ValueError as error:
        raise Fault(str(error)) from None
    question = checked_text("question", fields.get("question", ""), MAX_QUESTION)
    context = checked_text("context", fields.get("context", ""), MAX_CONTEXT)
    truth = checked_text("truth", fields.get("truth", ""), MAX_TRUTH, "The true answer", may_be_empty=True)
    if fields.get("unanswerable", "") not in ("", "yes", True, False):
        raise Fault("unanswerable must be true or false.", "truth")
    truths = tuple(line.strip() for line in truth.splitlines() if line.strip())
    if truths and fields.get("unanswerable"):
        raise Fault("Either there is a true answer or there is none: clear one of the two.", "truth")
    if truths and not any(map(squad.normalize_answer, truths)):
        raise Fault(
            "The true answer has no word that counts: EM and F1 leave out a, an, the and punctuation.",
            "truth",
        )
    try:
        max_error = float(fields["max_error"]) if fields.get("max_error") not in (None, "") else None
    except (TypeError, ValueError):
        raise Fault("The allowed error must be a number.", "max_error") from None
    if max_error is not None and not 0 < max_error < 1 or fields.get("max_error") is True:
        raise Fault("The allowed error must be above 0 and below 1.", "max_error")
    wanted, known = fields.get("models", ()), {entry.uri: entry for entry in entries}
    if not isinstance(wanted, list) or not all(isinstance(uri, str) for uri in wanted):
        raise Fault("models must be a list of strings.", "models")
    if not wanted:
        raise Fault("Choose a model.", "models")
    if len(set(wanted)) > KEPT:
        raise Fault(f"Choose at most {KEPT} models at a time.", "models")
    if not known.keys() >= set(wanted):
        raise Fault("A chosen model is not listed any more: load the page again.", "models")
    return Asked(
        question,
        context,
        truths if truths or fields.get("unanswerable") else None,
        tuple(entry for uri, entry in known.items() if uri in wanted),
        max_error,
    )


def pieces(context: str, answer: tuple[int, int], truths: Sequence[str] = ()) -> list[tuple[str, bool, bool]]:
    """The context cut into (text, whether it is in the answer, whether in a true answer), in order.

    answer: characters, end exclusive; negative if there is none. A true answer is marked at each place where it is whole words.
    """
    kinds = bytearray(len(context))
    for truth in truths:
        for match in re.finditer(rf"(?<!\w){re.escape(truth)}(?!\w)", context):
            kinds[match.start() : match.end()] = b"\x01" * len(match[0])
    for i in range(max(answer[0], 0), answer[1]):
        kinds[i] |= 2
    cut = []
    for kind, places in itertools.groupby(range(len(context)), key=kinds.__getitem__):
        first, *rest = places
        cut.append((context[first : first + 1 + len(rest)], bool(kind & 2), bool(kind & 1)))
    return cut


def result(entry: Entry, asked: Asked, reply: Reply) -> dict[str, Any]:
    """What the page and its script show of an answer; `exact_match` and `f1`, 0 to 1, where the truth is known and
    the model does not abstain."""
    best, *others = reply.answers
    shown = best | {
        "uri": entry.uri,
        "alternatives": others,
        "seconds": reply.seconds,
        "loading_seconds": reply.loading_seconds,
    }
    if asked.truths is not None and not best.get("abstained"):
        language = entry.facts.get("data_language")
        for name, score in (("exact_match", squad.exact_match), ("f1", squad.f1)):
            shown[name] = score(best["answer"], asked.truths, language=language)
    return shown


def facts(entry: Entry) -> list[tuple[str, str]]:
    """(label, value) of what the store holds about a model."""
    tags = entry.facts
    listed: list[tuple[str, str]] = []
    if "trainable_parameters" in tags and "total_parameters" in tags:
        trained, whole = float(tags["trainable_parameters"]), float(tags["total_parameters"])
        listed.append(("Trained", f"{trained:,.0f} ({trained / whole:.2%})"))
        listed.append(("Parameters", f"{whole:,.0f}"))
    if "test_f1" in tags:
        score = f"{float(tags['test_f1']):.1f}"
        if "test_f1_low" in tags and "test_f1_high" in tags:
            score += f" ({float(tags['test_f1_low']):.1f} to {float(tags['test_f1_high']):.1f})"
        listed.append(("Test F1", score))
    if "data_name" in tags:
        listed.append(("Data", f"{tags['data_name']} {tags.get('data_version', '')}".strip()))
    return listed


def examples() -> list[dict[str, Any]]:
    """The built-in questions as fields of the form, with their `name`."""
    rows = read_squad_json(SAMPLE / "test-v2.0.json").examples
    by_id = {row["id"]: row for row in rows}
    made = []
    for name, id_ in EXAMPLES.items():
        row = by_id[id_]
        article = dict.fromkeys(other["context"] for other in rows if other["title"] == row["title"])
        golds = dict.fromkeys(row["answers"]["text"])
        made.append(
            {
                "name": name,
                "question": row["question"],
                "context": "\n\n".join(article) if name == "A long text" else row["context"],
                "truth": "\n".join(golds),
                "unanswerable": not golds,
            }
        )
    return made


def create_app(
    catalogue: Catalogue,
    hosts: Sequence[str] = LOCAL,
    *,
    keys: Keys | None = None,
    corrections: Corrections | None = None,
) -> Flask:
    """The page as a WSGI application. hosts: names that a request may call this machine by, without ports. keys: of those who may
    open it; None: everybody. corrections: where corrected answers are kept; None: answers cannot be corrected.

    A page elsewhere can point its own name at this machine (DNS rebinding), and the browser would then let it in: requests
    under any other name are refused.
    """
    app = Flask(__name__, static_folder="static", template_folder="templates")
    app.config.update(MAX_CONTENT_LENGTH=MAX_BODY, MAX_FORM_MEMORY_SIZE=MAX_BODY)
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals.update(facts=facts, pieces=pieces, correctable=corrections is not None)
    known = {host_name(host) for host in hosts}
    app.before_request(lambda: refuse_other_names(known))
    app.before_request(refuse_other_sites)
    if keys is not None:
        app.before_request(lambda: refuse_without_key(keys))
    app.after_request(protect)
    correcting = None if corrections is None else Correcting(corrections)
    page = Page(catalogue, correcting)
    if correcting is not None:
        correcting.routes(app)
    app.get("/")(page.blank)
    app.post("/")(page.ask_by_form)
    app.post("/answer")(page.ask_by_script)
    for kind in (Fault, UserError, HTTPException):
        app.register_error_handler(kind, explain)
    return app


class Page:
    """The routes: the page with its form, the form's answers, and the same answers for the page's script."""

    def __init__(self, catalogue: Catalogue, correcting: Correcting | None = None):
        self.catalogue, self.correcting, self.examples = catalogue, correcting, examples()

    def blank(self) -> str:
        """The form, filled with a built-in question where the address names one."""
        chosen = request.args.get("example", "")
        return self._rendered(next((example for example in self.examples if example["name"] == chosen), {}))

    def ask_by_form(self) -> str | tuple[str, int]:
        """The page with the answers to the form's question, or with what is wrong with it."""
        names = ("question", "context", "truth", "unanswerable", "max_error")
        # Browsers send line ends as CRLF.
        fields: dict[str, Any] = {name: request.form.get(name, "").replace("\r\n", "\n") for name in names}
        fields["models"] = request.form.getlist("models")
        try:
            asked = checked(fields, self.catalogue.entries())
            return self._rendered(fields, asked, self._answers(asked))
        except Fault as fault:
            return self._rendered(fields, fault=fault), fault.status

    def ask_by_script(self) -> Response:
        """The answers as JSON, each with the `html` of its card."""
        asked = checked(read_json(), self.catalogue.entries())
        return jsonify(
            results=[
                {name: value for name, value in shown.items() if name != "entry"}
                | {"html": render_template("card.html", shown=shown, asked=asked)}
                for shown in self._answers(asked)
            ]
        )

    def _answers(self, asked: Asked) -> list[dict[str, Any]]:
        results = []
        for entry in asked.entries:
            try:
                reply = self.catalogue.ask(entry, asked.question, asked.context, ANSWERS, asked.max_error)
                shown = result(entry, asked, reply) | {"entry": entry}
                if self.correcting is not None:
                    shown["seal"] = self.correcting.seal(entry, asked.question, asked.context, shown)
                results.append(shown)
            except Unanswered as error:
                results.append({"entry": entry, "uri": entry.uri, "error": str(error)})
            except Busy:
                raise Fault(
                    "Other questions are still being answered: try again later.", status=503
                ) from None
        return results

    def _rendered(
        self,
        fields: Mapping[str, Any],
        asked: Asked | None = None,
        results: Sequence[Mapping[str, Any]] = (),
        fault: Fault | None = None,
    ) -> str:
        listed: Sequence[Entry] = ()
        try:
            listed = self.catalogue.entries()
        except UserError as error:
            fault = fault or Fault(str(error))
        return render_template(
            "page.html",
            fields=fields,
            chosen=fields.get("models", [entry.uri for entry in listed[:2]]),
            entries=listed,
            examples=self.examples,
            max_errors=MAX_ERRORS,
            asked=asked,
            results=results,
            fault=fault,
        )
