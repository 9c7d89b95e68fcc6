from types import SimpleNamespace

import numpy as np
import pytest
import torch

pytest.importorskip("onnxruntime", reason="needs requirements-onnx.txt")

from common.models import base
from common.models.families import FAMILIES
from common.models.onnx import OnnxModel, export
from common.tasks.batching import Collator
from common.tasks.extractive_qa.windows import make_windows
from tests.support.questions import EXAMPLES
from tests.support.techniques import TECHNIQUES

# ModernBERT's rotary positions are left out of the quick tests: its export takes as long as the others together.
FAMILIES_HERE = [
    "bert",
    "distilbert",
    "roberta",
    *(pytest.param(name, marks=pytest.mark.long) for name in ("xlm-roberta", "albert", "mpnet")),
]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES_HERE)
def test_an_exported_model_gives_the_logits_that_it_was_made_of(family, tiny, tmp_path):
    checkpoint = base.resolve_checkpoint(tiny(family))
    torch.manual_seed(0)
    model, tokenizer = base.load_base(checkpoint)
    model = base.apply(TECHNIQUES["lora"]().method(FAMILIES[family]), model, FAMILIES[family])
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape))
    model = model.merge_and_unload().eval()
    files = export(model, ("start_logits", "end_logits"), tmp_path)
    assert files["int8"].stat().st_size < files["fp32"].stat().st_size
    exported = {precision: OnnxModel(file, model.config) for precision, file in files.items()}
    windows = make_windows(
        tokenizer, EXAMPLES, max_length=64, doc_stride=16, segment_ids=FAMILIES[family].segment_ids
    )
    collate = Collator(tokenizer.pad_token_id)
    for rows in ([0], [1, 2, 3], range(len(windows))):
        batch = collate([windows[i] for i in rows])
        del batch["labels"]
        with torch.no_grad():
            expected = model(**batch)
        for name in ("start_logits", "end_logits"):
            real = batch["attention_mask"].bool().numpy()
            wanted = expected[name].numpy()[real]
            np.testing.assert_allclose(exported["fp32"](**batch)[name].numpy()[real], wanted, atol=1e-5)
            # 8 bits: outputs of the same shape with other numbers.
            assert np.corrcoef(exported["int8"](**batch)[name].numpy()[real], wanted)[0, 1] > 0.9
    if family == "bert":
        check_threads(exported["fp32"], batch, expected.start_logits.numpy())


def check_threads(model, batch, wanted):
    """It computes by the session with as many threads as torch would take, or else by the next smaller one."""
    used = []
    (first,) = model.sessions.values()
    before = torch.get_num_threads()
    model.open_for([1, before + 1, before])
    assert sorted(model.sessions) == sorted({1, before + 1, before}) and model.sessions[before] is first
    opened = model.sessions
    model.sessions = {
        n: SimpleNamespace(run=lambda *given, n=n: used.append(n) or opened[n].run(*given)) for n in opened
    }
    try:
        for threads in (1, before, before + 1, before + 5):
            torch.set_num_threads(threads)
            np.testing.assert_allclose(model(**batch)["start_logits"].numpy(), wanted, atol=1e-4)
    finally:
        torch.set_num_threads(before)
    assert used == [1, before, before + 1, before + 1]
    model.open_for([before])
    assert list(model.sessions) == [before]
