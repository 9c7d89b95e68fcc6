"""Products of linear layers in bf16: near those in float32, gradients included, and really taken."""

import copy

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from common.models import cpu_adapters, products
from common.models.cpu_kernels import quicken
from common.models.families import FAMILIES
from tests.common.models.test_cpu_kernels import built, logits, outcome
from tests.support.techniques import refusal

CELLS = [
    ("standard", "bert"),
    ("standard", "gpt2"),
    ("lora", "bert"),
    ("lora", "gpt2"),
    ("lora, dora", "bert"),
    ("adalora", "distilbert"),
    ("loha", "bert"),
    ("ia3", "roberta"),
    ("bottleneck", "bert"),
    ("prefix-tuning", "bert"),
    ("lora", "t5"),
]


@pytest.fixture(autouse=True)
def _afterwards():
    yield
    products.round_products(False)


@pytest.fixture
def every_width(monkeypatch):
    """The tests' models are narrow."""
    monkeypatch.setattr(cpu_adapters, "NARROW", 3)


@pytest.fixture
def nothing_empty():
    """Uninitialised memory holds NaN."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


def halved(model):
    products.round_products(True)
    return quicken(copy.deepcopy(model))


@pytest.mark.parametrize(("technique", "family_name"), CELLS)
def test_results_and_gradients_are_near_those_of_float32(
    technique, family_name, tiny, every_width, nothing_empty, monkeypatch
):
    assert not refusal(technique, FAMILIES[family_name], "QuestionAnswering")
    model, batch = built(tiny, family_name, technique)
    model.eval()
    monkeypatch.setattr(products, "room", lambda number: number + 3)
    expected, expected_grads = outcome(model, batch)
    found, grads = outcome(halved(model), batch)
    assert found.dtype == torch.float32
    assert 0 < distance(found, expected) < 0.03
    assert grads.keys() == expected_grads.keys()
    for name, grad in grads.items():
        assert grad.dtype == torch.float32
        assert distance(grad, expected_grads[name]) < 0.06, name
    assert any(distance(grad, expected_grads[name]) > 0 for name, grad in grads.items())


def distance(found, expected):
    """The length of the difference, as a share of what is expected."""
    return float((found - expected).norm() / expected.norm().clamp(min=1e-6))


# 10 rows take their own number, 74 take 76.
@pytest.mark.parametrize("length", [5, 37])
def test_a_product_is_that_of_rounded_factors(length, nothing_empty):
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, length, 96), torch.randn(80, 96), torch.randn(80)
    for tensor in (x, weight, bias):
        tensor.requires_grad_()
    products.round_products(True)
    out = products.product(x, weight, bias)
    assert out.shape == (2, length, 80)
    grad = torch.randn_like(out)
    out.backward(grad)
    x_, weight_, bias_, grad_ = (tensor.detach().bfloat16().double() for tensor in (x, weight, bias, grad))
    near = {"rtol": 2**-8, "atol": 1e-2}
    torch.testing.assert_close(out.double(), x_ @ weight_.T + bias_, **near)
    torch.testing.assert_close(x.grad.double(), grad_ @ weight_, **near)
    torch.testing.assert_close(weight.grad.double(), grad_.flatten(0, 1).T @ x_.flatten(0, 1), **near)
    torch.testing.assert_close(bias.grad, grad.sum((0, 1)))


def test_rows_take_one_of_16_numbers_in_each_octave():
    # 128 to 2,048 rows: four octaves, and 2,048 itself.
    assert len({products.room(8 * length) for length in range(16, 257)}) == 4 * 16 + 1
    for number in (0, 1, 16, 17, 1000, 1025, 100_000):
        assert number <= products.room(number) <= number * 17 / 16


@pytest.mark.parametrize("technique", ["standard", "lora", "lora, dora", "adalora", "loha", "bottleneck"])
def test_batches_of_all_lengths_take_products_of_few_shapes(technique, tiny, every_width):
    """Forward, backward and in evaluation."""
    model, batch = built(tiny, "bert", technique)
    half = halved(model.train())
    lengths = range(33, 65)
    # Weights do not change with the length, attention is in float32.
    taken = {products.room(8 * length) for length in lengths}
    with Shapes() as shapes:
        for length in lengths:
            whole = {name: repeated(tensor, length) for name, tensor in batch.items() if name != "labels"}
            outcome(half, whole)
            with cpu_adapters.updates_held(half):
                logits(half, whole)
    assert len(taken) == 16
    assert {number for number in shapes.rows if number > 256} == taken


def repeated(tensor, length):
    """8 sequences of a length."""
    return tensor.repeat(8, 8)[:8, :length]


class Shapes(TorchDispatchMode):
    """The longest sides of the products in bf16."""

    def __init__(self):
        super().__init__()
        self.rows = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        factors = [
            x for x in args if isinstance(x, torch.Tensor) and x.dtype == torch.bfloat16 and x.dim() > 1
        ]
        if func.overloadpacket in (torch.ops.aten.mm, torch.ops.aten.addmm, torch.ops.aten.bmm):
            self.rows |= {max(x.shape) for x in factors}
        return func(*args, **(kwargs or {}))


def test_float32_is_torchs_own():
    x, weight, bias = torch.randn(5, 96), torch.randn(80, 96), torch.randn(80)
    assert torch.equal(products.product(x, weight, bias), torch.nn.functional.linear(x, weight, bias))
    products.round_products(True)
    products.round_products(False)
    assert torch.equal(products.product(x, weight, bias), torch.nn.functional.linear(x, weight, bias))


def test_narrow_layers_and_models_made_for_float32_stay_exact(tiny):
    model, batch = built(tiny, "bert", "standard")
    model.eval()
    expected = logits(model, batch)
    made = quicken(copy.deepcopy(model))
    assert not any(isinstance(module, cpu_adapters.RoundedLinear) for module in made.modules())
    head = halved(model).qa_outputs
    assert type(head) is torch.nn.Linear
    # Otherwise torch rounds on processors with AMX.
    assert torch.get_float32_matmul_precision() == "highest"
    torch.testing.assert_close(logits(made, batch), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("technique", ["standard", "lora", "loha"])
def test_evaluation_rounds_each_weight_once(technique, tiny, every_width):
    model, batch = built(tiny, "bert", technique)
    half = halved(model.eval())
    before = logits(half, batch)
    with cpu_adapters.updates_held(half):
        torch.testing.assert_close(logits(half, batch), before)
        held = [w for m in half.modules() for w in (getattr(m, "held", None) or {}).values()]
        assert len(held) > 10
        # PEFT's own layers would round what they call, but hold nothing themselves.
        adapters = {name for m in half.modules() for name in getattr(m, "held", None) or {}}
        assert adapters == {"" if technique == "standard" else "default"}
        assert {weight.dtype for weight in held} == {torch.bfloat16}
    assert not any(getattr(module, "held", None) for module in half.modules())


def test_a_cpu_tells_whether_it_multiplies_bf16(monkeypatch):
    for found, expected in (
        ({"avx512_bf16": True}, True),
        ({"avx2": True}, False),
        ({"amx_bf16": True}, True),
    ):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda found=found: found)
        assert products.hardware_has_bf16() is expected
