"""A few questions on the tiny tokenizers' sentences, with their answers marked; questions as the hub has them."""

from common.data.squad_json import read_squad_json


def _example(number: int, question: str, context: str, answer: str) -> dict:
    answers = (
        {"text": [answer], "answer_start": [context.index(answer)]}
        if answer
        else {"text": [], "answer_start": []}
    )
    return {
        "id": f"q{number}",
        "title": f"t{number}",
        "question": question,
        "context": context,
        "answers": answers,
    }


_HEART = "The heart pumps blood through the body about seventy times a minute."
_ICELAND = "Iceland lies on a ridge where two plates drift apart, two centimetres each year."
_CURIE = "In 1903 Marie Curie shared the Nobel Prize in Physics with her husband Pierre."

EXAMPLES = [
    _example(0, "What does the heart pump?", _HEART, "blood"),
    _example(1, "How often does it pump?", _HEART, "about seventy times a minute"),
    _example(2, "Where does Iceland lie?", _ICELAND, "on a ridge"),
    _example(3, "What drifts apart?", _ICELAND, "two plates"),
    _example(4, "Who shared the prize?", _CURIE, "Marie Curie"),
    _example(5, "When was it?", _CURIE, "1903"),
    _example(6, "Who is her husband?", _CURIE, "Pierre"),
    _example(7, "What do bees drink?", _CURIE, ""),
]


def write_hub_files(folder, files):
    """What the repository rajpurkar/squad holds, with other questions."""
    import pyarrow
    import pyarrow.parquet

    (folder / "plain_text").mkdir(parents=True)
    for split, file in zip(("train", "validation"), files, strict=True):
        table = pyarrow.Table.from_pylist(read_squad_json(file).examples)
        pyarrow.parquet.write_table(table, folder / "plain_text" / f"{split}-00000-of-00001.parquet")
