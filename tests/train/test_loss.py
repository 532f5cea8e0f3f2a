"""The chunked cross entropy against torch's own, values and gradients."""

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="torch comes with llamita[train]")
import torch.nn.functional as F

from llamita.train import loss
from llamita.train.loss import linear_cross_entropy, linear_log_probabilities


@pytest.mark.parametrize(("n", "width", "vocabulary"), [(1, 4, 7), (63, 8, 30), (64, 8, 30), (65, 8, 30), (300, 16, 500)])
def test_loss_and_gradients_are_those_of_whole_logits(n, width, vocabulary, monkeypatch):
    monkeypatch.setitem(loss.CHUNK_BYTES, "cpu", 4 * vocabulary * 64)
    torch.manual_seed(0)
    x, weight = torch.randn(n, width), torch.randn(vocabulary, width)
    targets = torch.randint(0, vocabulary, (n,))
    found, expected = ((x.clone().requires_grad_(), weight.clone().requires_grad_()) for _ in range(2))
    ours = linear_cross_entropy(*found, targets)
    theirs = F.cross_entropy(F.linear(*expected), targets)
    (3 * ours).backward()
    (3 * theirs).backward()
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


def test_without_gradients_none_are_made():
    value = linear_cross_entropy(torch.randn(10, 4), torch.randn(6, 4), torch.randint(0, 6, (10,)))
    assert not value.requires_grad


def test_products_are_made_in_the_dtype_of_autocast():
    x, weight = torch.randn(70, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    targets = torch.randint(0, 30, (70,))
    exact = linear_cross_entropy(x, weight, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = linear_cross_entropy(x, weight, targets)
    rounded.backward()
    assert x.grad is not None
    assert x.grad.dtype == torch.float32
    assert 0 < abs(rounded.item() - exact.item()) < 0.05


def test_logits_far_from_zero_give_a_finite_loss():
    x, weight = torch.full((3, 2), 300.0, requires_grad=True), torch.tensor([[1.0, 1.0], [-1.0, -1.0]])
    value = linear_cross_entropy(x, weight, torch.tensor([0, 0, 0]))
    value.backward()
    assert value.item() == 0
    assert torch.isfinite(x.grad).all()  # pyright: ignore[reportArgumentType]


def rows_and_targets(n: int = 150, width: int = 8, vocabulary: int = 30) -> tuple[Any, Any]:
    """Rows, a classifier twice, to be differentiated apart, and targets of which every third is none."""
    torch.manual_seed(1)
    x, weight, targets = torch.randn(n, width), torch.randn(vocabulary, width), torch.randint(0, vocabulary, (n,))
    targets[::3] = -1
    return [[x.clone().requires_grad_(), weight.clone().requires_grad_()] for _ in range(2)], targets


@pytest.fixture(params=[False, True], ids=["eager", "as compiled"])
def compiling(request, monkeypatch):
    """The code that torch.compile sees, which leaves no rows out, and the other; chunks of 64 rows."""
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: request.param)
    monkeypatch.setitem(loss.CHUNK_BYTES, "cpu", 1)


@pytest.mark.usefixtures("compiling")
def test_a_masked_loss_is_torchs_with_ignore_index():
    (found, expected), targets = rows_and_targets()
    ours = linear_cross_entropy(found[0], found[1], targets, masked=True)
    theirs = F.cross_entropy(F.linear(*expected), targets, ignore_index=-1)
    (2 * ours).backward()
    (2 * theirs).backward()
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.usefixtures("compiling")
def test_a_masked_loss_without_targets_is_zero_and_so_are_its_slopes():
    (found, _), targets = rows_and_targets()
    value = linear_cross_entropy(found[0], found[1], torch.full_like(targets, -1), masked=True)
    value.backward()
    assert value.item() == 0
    assert all((tensor.grad == 0).all() for tensor in found)


@pytest.mark.usefixtures("compiling")
def test_log_probabilities_and_their_gradients_are_those_of_whole_logits():
    (found, expected), targets = rows_and_targets()
    ours = linear_log_probabilities(found[0], found[1], targets)
    shares = F.log_softmax(F.linear(*expected), -1)
    theirs = torch.where(targets >= 0, shares.gather(1, targets.clamp(min=0)[:, None])[:, 0], 0)
    slopes = torch.randn(len(targets))
    (ours * slopes).sum().backward()
    (theirs * slopes).sum().backward()
    torch.testing.assert_close(ours, theirs)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a.grad, b.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("function", [linear_cross_entropy, linear_log_probabilities])
def test_a_frozen_classifier_gets_no_gradient(function):
    (found, expected), targets = rows_and_targets()
    frozen = found[1].detach()
    function(found[0], frozen, targets.clamp(min=0)).sum().backward()
    function(*expected, targets.clamp(min=0)).sum().backward()
    assert frozen.grad is None
    assert torch.equal(found[0].grad, expected[0].grad)
