"""How an answer on the page is corrected: the right place in the text, or that there is none.

With each answer the page gives a seal, which a correction sends back: it says what which model had answered to what, so the
record of it is the server's own, and nobody corrects what was never asked here.
"""

import secrets
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from flask import Flask, Response, jsonify, render_template, request
from itsdangerous import BadSignature, URLSafeSerializer

from ..data.answer_places import places
from ..errors import UserError
from ..scoring import squad
from ..scoring.languages import rules_of
from ..serving.question_requests import MAX_QUESTION
from ..serving.requests import check_known
from .catalogue import Entry
from .corrections import Correction, Corrections, Full, Occupied, digest
from .guard import MAX_CONTEXT, Fault, checked_text, read_json

MAX_ANSWER = 2_000
"""Characters of an answer."""

A_MINUTE = 60
"""Corrections that are taken in a minute, from all readers together."""

FIELDS = ("question", "context", "seal", "answer", "start", "end", "unanswerable")


class Correcting:
    """Takes corrections of answers that it sealed."""

    def __init__(self, corrections: Corrections, a_minute: int = A_MINUTE):
        self.corrections, self.a_minute = corrections, a_minute
        self._seals = URLSafeSerializer(secrets.token_bytes(32), salt="answer")
        self._taken: deque[float] = deque(maxlen=a_minute)
        self._lock = threading.Lock()

    def routes(self, app: Flask) -> None:
        """Add what takes corrections to the page."""
        app.post("/correction")(self.correct)

    def seal(self, entry: Entry, question: str, context: str, answer: Mapping[str, Any]) -> str:
        """What a correction of this answer has to send back."""
        told = {
            "model": entry.uri,
            "language": entry.facts.get("data_language"),
            "asked": digest(question, context),
            "text": answer["answer"],
            "start": answer["start"],
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return str(self._seals.dumps(told))

    def correct(self) -> Response | str:
        """Keep the correction of a form or of the page's script; raises Fault."""
        correction = self.checked(read_json() if request.is_json else _of_form())
        self._take_turn()
        try:
            times = self.corrections.add(correction)
        except Full:
            raise Fault("No more corrections are taken: the file for them is full.", status=413) from None
        except Occupied:
            raise Fault("Other corrections are still being written: try again later.", status=503) from None
        except (OSError, UserError):
            traceback.print_exc(file=sys.stderr)
            raise Fault(
                "The correction could not be kept; the terminal that the page was started in shows why.",
                status=503,
            ) from None
        told = (
            f"“{correction.text}” is the right answer." if correction.text else "The text does not answer it."
        )
        if times > 1:
            told += " It takes the place of the earlier correction of this question."
        if request.is_json:
            return jsonify(saved=told, start=correction.start, times=times)
        return render_template("saved.html", told=told)

    def checked(self, fields: Mapping[str, Any]) -> Correction:
        """A correction from FIELDS: `answer` with its place `start`, `end` in code points of the context, end exclusive, or
        without a place if it stands there once; or `unanswerable`. Raises Fault."""
        try:
            check_known("The request has the key", fields, FIELDS)
        except ValueError as error:
            raise Fault(str(error)) from None
        question = checked_text("question", fields.get("question", ""), MAX_QUESTION)
        context = checked_text("context", fields.get("context", ""), MAX_CONTEXT)
        try:
            told = self._seals.loads(fields.get("seal", ""))
        except (BadSignature, TypeError, ValueError):
            raise Fault("The page was started again since this answer: ask once more.", "seal") from None
        if told["asked"] != digest(question, context):
            raise Fault("The model was asked another question, or on another text: ask once more.", "seal")
        text, start = _right(fields, context, told["language"])
        answered = {name: told[name] for name in ("text", "start", "time")}
        return Correction(question, context, text, start, told["model"], answered, told["language"])

    def _take_turn(self) -> None:
        with self._lock:
            now = time.monotonic()
            if len(self._taken) == self.a_minute and now - self._taken[0] < 60:
                raise Fault(
                    f"At most {self.a_minute} corrections are taken in a minute: try again later.", status=429
                )
            self._taken.append(now)


def _right(fields: Mapping[str, Any], context: str, language: str | None) -> tuple[str, int]:
    """(the right answer, its place), ("", -1) if there is none. language: by whose rules it will be scored."""
    if fields.get("unanswerable", "") not in ("", "yes", True, False):
        raise Fault("unanswerable must be true or false.", "unanswerable")
    text, start, end = (fields.get(name) for name in ("answer", "start", "end"))
    if fields.get("unanswerable"):
        # A form sends the answer that was marked along with the button that says there is none.
        return "", -1
    text = checked_text("answer", "" if text is None else text, MAX_ANSWER, "The right answer")
    rules = rules_of(language)
    if not (rules or squad.SQUAD).normalize(text):
        left_out = (
            "punctuation, and articles of this model's language" if rules else "a, an, the and punctuation"
        )
        raise Fault(f"The right answer has no word that counts: EM and F1 leave out {left_out}.", "answer")
    if start is None and end is None:
        found = [at for at in places(context, text) if context[at[0] : at[1]] == text]
        if not found:
            raise Fault("The right answer does not stand in the text like this: mark it there.", "answer")
        if len(found) > 1:
            raise Fault(
                f"The right answer stands in the text {len(found)} times: mark the place that is meant.",
                "answer",
            )
        return text, found[0][0]
    if type(start) is not int or type(end) is not int:
        raise Fault("start and end must be whole numbers, or both be left out.", "answer")
    if not 0 <= start < end or context[start:end] != text:
        raise Fault("The right answer does not stand at this place of the text: mark it again.", "answer")
    if text != text.strip():
        raise Fault("The right answer begins or ends with white space.", "answer")
    return text, start


def _of_form() -> dict[str, Any]:
    """The fields of a form, which gives no place."""
    # Browsers send line ends as CRLF.
    fields: dict[str, Any] = {name: value.replace("\r\n", "\n") for name, value in request.form.items()}
    return fields | {"answer": fields.get("answer", "").strip()}
