"""Tables of German and Chinese questions, through the scripts: prepared, trained, scored by their language's rules, served."""

import csv
import json

import mlflow
import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

from common.data.prepared import load
from common.registry import register
from common.scoring.squad import squad_scores
from tests.conftest import make_config
from tests.scripts.conftest import SMALL, run_here, runs
from tests.support.server import post, served
from tests.support.tokenizers import train

ROWS = 300

GERMAN = [
    (
        "die Donau",
        "Wien",
        "Welcher Fluss fließt durch {city}?",
        "Durch {city} fließt {answer}, ein großer Fluss.",
    ),
    ("der Dom", "Köln", "Welches Bauwerk steht in {city}?", "In {city} steht {answer}; er ist sehr alt."),
    (
        "die Elbe",
        "Hamburg",
        "Welcher Fluss fließt durch {city}?",
        "{city} liegt am Wasser: {answer} ist nahe.",
    ),
]
CHINESE = [
    ("长江", "武汉", "哪条河流过{city}？", "{city}是一座大城市，{answer}流过这里。"),
    ("故宫", "北京", "{city}有什么？", "在{city}有{answer}，它很古老。"),
    ("黄浦江", "上海", "哪条河流过{city}？", "{answer}流过{city}，那里有很多船。"),
]


def write_table(file, kinds):
    """Rows of one question each: answers without a place, titles by city and year."""
    with open(file, "w", newline="", encoding="utf-8") as out:
        table = csv.writer(out)
        table.writerow(["id", "title", "question", "context", "answer"])
        for n in range(ROWS):
            answer, city, question, context = kinds[n % 3]
            told = f"{1900 + n // 3}: {context.format(city=city, answer=answer)}"
            table.writerow([n, f"{city} {n // 3}", question.format(city=city), told, answer])


def write_model(folder, kinds):
    """A tiny BERT whose vocabulary has the language of the rows."""
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.BertNormalizer(lowercase=False)
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    special = ["[PAD]", "[CLS]", "[SEP]", "[UNK]"]
    texts = [part.format(city=city, answer=answer) for answer, city, *parts in kinds for part in parts]
    texts += [str(year) for year in range(1900, 2010)]
    train(made, trainers.WordPieceTrainer(vocab_size=400, special_tokens=special, show_progress=False), texts)
    ids = [(token, made.token_to_id(token)) for token in ("[CLS]", "[SEP]")]
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=ids
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=made, cls_token="[CLS]", sep_token="[SEP]", pad_token="[PAD]", unk_token="[UNK]"
    )
    torch.manual_seed(0)
    transformers.BertForQuestionAnswering(make_config("bert", tokenizer)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.long
@pytest.mark.parametrize("language, kinds", [("de", GERMAN), ("zh", CHINESE)])
def test_a_table_of_another_language_becomes_a_served_model(language, kinds, store, tmp_path):
    table, data = tmp_path / "questions.csv", tmp_path / "data"
    write_table(table, kinds)
    write_model(tmp_path / "model", kinds)
    flags = ("--train_file", table, "--language", language, "--output_dir", data)
    done = run_here("prepare_data.py", "--source", "files", *flags)
    assert f"answers are scored by the rules for {language}" in done.stdout
    splits, record = load(data)
    assert record.language == language and sum(len(part) for part in splits.values()) == ROWS
    assert all(
        row["context"].startswith(row["answers"]["text"][0], row["answers"]["answer_start"][0])
        for row in splits["train"]
    )

    flags = (*SMALL, "--num_train_epochs", 3, "--learning_rate", 1e-2, "--output_dir", tmp_path / "out")
    run_here(
        "bert_fine_tuning.py",
        "--model_checkpoint",
        tmp_path / "model",
        "--data_dir",
        data,
        *flags,
        cwd=tmp_path,
    )
    (run,) = runs()
    assert run.data.tags["data_language"] == language
    rows = mlflow.artifacts.load_dict(f"runs:/{run.info.run_id}/predictions/test.json")
    predictions = {row["id"]: row["prediction"] for row in rows}
    examples = list(splits["test"])
    assert run.data.metrics["test_f1"] == pytest.approx(squad_scores(predictions, examples, "v1.1")["f1"])
    # The language decides: by SQuAD's own rules articles stay in German answers, and Chinese ones are one word each.
    (tmp_path / "predictions.json").write_text(json.dumps(predictions), encoding="utf-8")
    with open(tmp_path / "test.jsonl", "w", encoding="utf-8") as out:
        out.writelines(json.dumps({k: v for k, v in e.items() if k != "language"}) + "\n" for e in examples)
    scored = run_here(
        "score.py", tmp_path / "test.jsonl", tmp_path / "predictions.json", "--language", language
    )
    assert json.loads(scored.stdout)["f1"] == pytest.approx(run.data.metrics["test_f1"])
    assert run.data.metrics["test_f1"] > 30

    done = register.register_best("squad-qa", data_dir=data)
    assert done.alias == "champion"
    with served(tmp_path, "models:/bert-squad-qa@champion") as (address, *_):
        asked = [{name: e[name] for name in ("question", "context")} for e in examples[:5]]
        status, answer = post(address, {"dataframe_records": asked})
    assert status == 200
    given = [row["answer"] for row in json.loads(answer)["predictions"]]
    assert given == [predictions[e["id"]] for e in examples[:5]]
