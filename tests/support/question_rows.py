"""Questions about towers, as rows and in the shapes that hold them."""

import json

CONTEXTS = [
    f"Tower {n} is {n + 20} metres high. It was built in 19{n:02}; the architect was Ada." for n in range(5)
]


def row(n: int) -> dict:
    context = CONTEXTS[n // 4]
    text = [f"{n // 4 + 20} metres", f"19{n // 4:02}", "Ada", ""][n % 4]
    start = [context.index(text)] if text else []
    return {
        "id": f"q{n}",
        "title": f"tower {n // 8}",
        "context": context,
        "question": f"What is asked {n}?",
        "answers": {"text": [text] if text else [], "answer_start": start},
    }


ROWS = [row(n) for n in range(20)]


def flat(rows=ROWS, **names):
    """Rows with one answer in two columns, and a mark where there is none."""
    return [
        {names.get(key, key): e[key] for key in ("id", "title", "context", "question")}
        | {
            "answer": (e["answers"]["text"] or [""])[0],
            "answer_start": (e["answers"]["answer_start"] or [None])[0],
            "is_impossible": not e["answers"]["text"],
        }
        for e in rows
    ]


def as_squad(rows=ROWS):
    from tests.scripts.conftest import squad_json

    return squad_json(rows)


def save(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), "utf-8")
    return path
