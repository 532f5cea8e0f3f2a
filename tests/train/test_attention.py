"""The compiled attention against plain torch in float64: odd sizes, groups, documents, extremes, threads, torch.compile."""

import pytest

torch = pytest.importorskip("torch")

from llamita.train import attention
from llamita.train.attention import causal_attention, compiled_attention, plain_attention

# (sequences, tokens, query heads, key/value heads, head size)
SHAPES = [
    (1, 1, 1, 1, 2),
    (2, 17, 4, 2, 8),
    (1, 200, 2, 1, 16),
    (2, 100, 6, 6, 48),
    (1, 113, 4, 1, 64),
    (1, 67, 2, 2, 80),
    (2, 33, 3, 1, 12),
    (1, 96, 8, 2, 24),
    (3, 16, 2, 2, 6),
]


def make_inputs(shape, dtype=torch.float32, seed=0):
    """(qkv, cosines, sines, n_heads, n_kv_heads) and a gradient of the output."""
    n_sequences, n_tokens, n_heads, n_kv_heads, head_size = shape
    generator = torch.Generator().manual_seed(seed)
    qkv = torch.randn(n_sequences, n_tokens, n_heads + 2 * n_kv_heads, head_size, generator=generator).to(dtype)
    d_out = torch.randn(n_sequences, n_tokens, n_heads, head_size, generator=generator).to(dtype)
    angles = torch.outer(torch.arange(n_tokens).float(), 1e4 ** (-torch.arange(0, head_size, 2) / head_size))
    return (qkv.requires_grad_(), angles.cos(), angles.sin(), n_heads, n_kv_heads), d_out


def make_starts(kind, n_sequences, n_tokens):
    """document_starts: none, one document, each token its own, or documents of random lengths."""
    positions = torch.arange(n_tokens, dtype=torch.int32).expand(n_sequences, n_tokens)
    if kind == "none":
        return None
    if kind == "one":
        return torch.zeros_like(positions)
    if kind == "each":
        return positions.clone()
    begins = torch.rand(n_sequences, n_tokens, generator=torch.Generator().manual_seed(1)) < 0.07
    return torch.where(begins, positions, 0).cummax(1).values.int()


def reference(inputs, d_out, starts=None):
    """(out, d_qkv) in float64, written out: no kernel of torch's attention takes part."""
    qkv, cosines, sines, n_heads, n_kv_heads = inputs
    qkv = qkv.detach().double().requires_grad_()
    query, key, value = qkv.split((n_heads, n_kv_heads, n_kv_heads), 2)
    turns = torch.complex(cosines.double(), sines.double())[:, None]
    query, key = (torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turns).flatten(-2) for x in (query, key))
    key, value = (x.repeat_interleave(n_heads // n_kv_heads, 2) for x in (key, value))
    scores = torch.einsum("bthk,bshk->bhts", query, key) * qkv.shape[-1] ** -0.5
    position = torch.arange(qkv.shape[1])
    is_hidden = position[None, :] > position[:, None]
    if starts is not None:
        is_hidden = is_hidden | (position < starts[:, :, None])[:, None]
    weights = scores.masked_fill(is_hidden, -torch.inf).softmax(-1)
    out = torch.einsum("bhts,bshk->bthk", weights, value)
    return out.detach(), torch.autograd.grad(out, qkv, d_out.double())[0]


def run(inputs, d_out, starts=None, attend=causal_attention):
    """(out, d_qkv) of one implementation."""
    out = attend(*inputs, starts)
    return out.detach(), torch.autograd.grad(out, inputs[0], d_out)[0]


def assert_close(found, expected, tolerance):
    """Errors are measured by the largest number of the whole: sums of canceling terms have no relative precision."""
    for name, x, y in zip(("out", "d_qkv"), found, expected, strict=True):
        error = ((x.double() - y).abs().max() / y.abs().max().clamp(min=1e-30)).item()
        assert error < tolerance, f"{name}: off by {error:.1e}"


@pytest.mark.parametrize("starts", ["none", "one", "each", "random"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_both_ways_agree_with_float64(shape, starts):
    inputs, d_out = make_inputs(shape)
    starts = make_starts(starts, *shape[:2])
    expected = reference(inputs, d_out, starts)
    assert_close(run(inputs, d_out, starts), expected, 2e-6)
    assert_close(run(inputs, d_out, starts, plain_attention), expected, 2e-6)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_bfloat16_is_right_to_its_own_rounding(shape):
    inputs, d_out = make_inputs(shape, torch.bfloat16)
    assert_close(run(inputs, d_out), reference(inputs, d_out), 2**-7)


def test_one_thread_gives_the_bits_of_two():
    inputs, d_out = make_inputs((3, 150, 4, 2, 16))
    n_threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = run(inputs, d_out)
        torch.set_num_threads(2)
        together = run(inputs, d_out)
    finally:
        torch.set_num_threads(n_threads)
    assert all(torch.equal(x, y) for x, y in zip(alone, together, strict=True))


def test_a_pool_of_our_own_gives_the_bits_of_torchs_threads(monkeypatch):
    inputs, d_out = make_inputs((3, 150, 4, 2, 16))
    expected = run(inputs, d_out)
    monkeypatch.setattr(attention, "torch_openmp", lambda: None)
    assert all(torch.equal(x, y) for x, y in zip(run(inputs, d_out), expected, strict=True))


def test_later_tokens_and_other_documents_change_not_a_bit():
    inputs, d_out = make_inputs((1, 120, 4, 2, 8))
    starts = torch.zeros(1, 120, dtype=torch.int32)
    starts[:, 50:] = 50
    before = run(inputs, d_out, starts)[0]
    other = inputs[0].detach().clone()
    other[:, :50] = 7
    other[:, 100:] = -3
    after = causal_attention(other, *inputs[1:], starts)
    assert torch.equal(before[:, 50:100], after[:, 50:100])


def test_a_query_sees_at_least_itself():
    inputs, d_out = make_inputs((1, 20, 2, 1, 8))
    late = torch.full((1, 20), 100, dtype=torch.int32)
    expected = reference(inputs, d_out, make_starts("each", 1, 20))
    assert_close(run(inputs, d_out, late), expected, 2e-6)
    assert_close(run(inputs, d_out, late, plain_attention), expected, 2e-6)


@pytest.mark.parametrize("factor", [0.0, 100.0])
def test_zeros_and_scores_of_ten_thousand(factor):
    inputs, d_out = make_inputs((1, 130, 2, 1, 16))
    inputs = ((inputs[0].detach() * factor).requires_grad_(), *inputs[1:])
    expected = reference(inputs, d_out)
    assert_close(run(inputs, d_out), expected, 1e-2 if factor else 2e-6)  # float32 knows scores of 1e4 to 1e-3


def test_no_number_in_a_token_reaches_all_that_see_it():
    inputs, _ = make_inputs((1, 60, 2, 1, 8))
    broken = inputs[0].detach().clone()
    broken[0, 30] = torch.nan
    out = causal_attention(broken, *inputs[1:])
    assert out[0, 30:].isnan().all()


def test_a_strided_qkv_gives_the_same():
    inputs, d_out = make_inputs((2, 40, 4, 2, 8))
    strided = inputs[0].detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    assert not strided.is_contiguous()
    found = run((strided, *inputs[1:]), d_out.transpose(1, 2).contiguous().transpose(1, 2))
    assert all(torch.equal(x, y) for x, y in zip(found, run(inputs, d_out), strict=True))


def test_no_sequences_give_nothing():
    inputs, d_out = make_inputs((0, 8, 4, 2, 8))
    out, d_qkv = run(inputs, d_out)
    assert out.shape == (0, 8, 4, 8)
    assert d_qkv.shape == (0, 8, 8, 8)


def test_the_operator_keeps_torchs_rules():
    inputs, _ = make_inputs((1, 20, 2, 1, 8))
    for starts in (None, make_starts("random", 1, 20)):
        torch.library.opcheck(compiled_attention, (*inputs, starts))


@pytest.mark.filterwarnings("ignore")  # of torch's compiler
def test_torch_compile_takes_it_whole():
    inputs, d_out = make_inputs((2, 40, 4, 2, 8))
    compiled = torch.compile(causal_attention, fullgraph=True, backend="aot_eager")
    found = run(inputs, d_out, make_starts("random", 2, 40), compiled)
    expected = run(inputs, d_out, make_starts("random", 2, 40))
    assert all(torch.equal(x, y) for x, y in zip(found, expected, strict=True))


def test_what_does_not_fit_is_refused():
    (qkv, cosines, sines, n_heads, n_kv_heads), _ = make_inputs((1, 20, 4, 2, 8))
    with pytest.raises(ValueError, match="qkv: found shape"):
        causal_attention(qkv, cosines, sines, n_heads, 1)
    with pytest.raises(ValueError, match="expected a multiple"):
        causal_attention(qkv, cosines, sines, 2, 3)
    with pytest.raises(ValueError, match=r"cosines: found torch\.float32"):
        causal_attention(qkv, cosines[1:], sines, n_heads, n_kv_heads)
    with pytest.raises(ValueError, match=r"document_starts: found torch\.int64"):
        causal_attention(qkv, cosines, sines, n_heads, n_kv_heads, torch.zeros(1, 20, dtype=torch.int64))


def test_other_dtypes_take_torchs_own_attention():
    inputs, d_out = make_inputs((1, 20, 2, 1, 8), torch.float64)
    assert not attention.uses_operator(inputs[0])
    assert run(inputs, d_out)[0].dtype == torch.float64
