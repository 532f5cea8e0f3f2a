"""The SIMD vocabulary against numpy, over ends of rows, extremes and zeros."""

import numpy as np
import pytest

from llamita.engine.memory import address_of, aligned
from llamita.engine.rows import quantize_rows, softmax
from llamita.simd.isa import current_isa, is_blocked
from llamita.simd.kernel import kernel
from llamita.simd.memory import load, load_bf16, load_f16, load_first, store, store_first
from llamita.simd.vectors import exp, reduce_add, reduce_max, silu_multiply


@kernel
def apply_exp(x, out, n):
    for i in range(0, n, 16):
        store(out, i, exp(load(x, i)))


@kernel
def apply_silu(x, y, out, n):
    for i in range(0, n, 16):
        store(out, i, silu_multiply(load(x, i), load(y, i)))


@kernel
def reduce_both(x):
    return reduce_add(load(x, 0)), reduce_max(load(x, 0))


@kernel
def copy_first(x, out, n):
    store_first(out, 0, load_first(x, 0, n), n)


@kernel
def widen(halves, brains, out):
    store(out, 0, load_f16(halves, 0))
    store(out, 16, load_bf16(brains, 0))


def floats(values) -> np.ndarray:
    array = aligned(len(values), np.float32)
    array[:] = values
    return array


def test_exp_is_exact_to_an_ulp_and_right_at_the_ends():
    x = floats(np.concatenate([np.linspace(-86, 88, 16 * 1000 - 16), [-np.inf, -1000, -88, 88.0, 0.0, -0.0, 1e-30, 1.0] * 2]))
    out = floats(np.zeros(len(x)))
    apply_exp(address_of(x), address_of(out), len(x))
    expected = np.exp(x.astype(np.float64))
    inside = x > -86.5
    assert np.abs(out[inside] / expected[inside] - 1).max() < 1.5e-7
    assert np.all(out[~inside] == 0)


def test_silu_equals_its_formula_also_for_large_numbers():
    x = floats(np.concatenate([np.linspace(-30, 30, 16 * 50 - 4), [-1e4, 1e4, -200, 200]]))
    y, out = floats(np.linspace(-2, 2, len(x))), floats(np.zeros(len(x)))
    apply_silu(address_of(x), address_of(y), address_of(out), len(x))
    with np.errstate(over="ignore"):
        expected = x.astype(np.float64) / (1 + np.exp(-x.astype(np.float64))) * y
    assert np.abs(out - expected).max() <= 1e-5 * np.abs(expected).max()
    assert np.isfinite(out).all()


def test_reductions_cover_all_lanes():
    for lane in range(16):
        x = floats(np.full(16, -5.0))
        x[lane] = 7.0
        assert reduce_both(address_of(x)) == (7.0 - 75.0, 7.0)


@pytest.mark.parametrize("n", range(17))
def test_partial_vectors_touch_only_their_lanes(n: int):
    x, out = floats(np.arange(16) + 1), floats(np.full(16, -1.0))
    copy_first(address_of(x), address_of(out), n)
    assert np.array_equal(out, np.where(np.arange(16) < n, x, -1.0))


def test_half_precision_loads_are_exact():
    values = np.array([0, -0.0, 1, -2.5, 65504, 6e-8, np.inf, 3.14] * 2, np.float32)
    halves, out = values.astype(np.float16), floats(np.zeros(32))
    brains = (values.view(np.uint32) >> 16).astype(np.uint16)
    widen(address_of(halves), address_of(brains), address_of(out))
    assert np.array_equal(out[:16], halves.astype(np.float32))
    assert np.array_equal(out[16:], (brains.astype(np.uint32) << 16).view(np.float32))


@pytest.mark.parametrize("n_positions", [1, 2, 15, 16, 17, 33, 48])
def test_softmax_masks_what_lies_behind(n_positions: int):
    scores = floats(np.random.default_rng(0).standard_normal(64) * 10)
    visible = scores[:n_positions].astype(np.float64)
    inverse = softmax(address_of(scores), 16, 4, n_positions)
    expected = np.exp(visible - visible.max())
    assert scores[:n_positions] * inverse == pytest.approx(expected / expected.sum(), rel=2e-5, abs=1e-12)
    assert np.all(scores[n_positions:] == 0)


@pytest.mark.parametrize(("columns", "group"), [(128, 64), (96, 32), (172, 4), (90, 6), (30, 5), (64, 64), (33, 1)])
@pytest.mark.parametrize("n_rows", [1, 2, 3, 7, 8, 13, 14])
def test_rows_are_quantized_as_numpy_does_it(columns: int, group: int, n_rows: int):
    x = floats(np.random.default_rng(columns).standard_normal(n_rows * columns + 16) * 3)
    x[columns // 2] = 1e-20
    x[:group] = 0  # a group of zeros
    block, padded = (32, group) if is_blocked(current_isa(), group) else (4, -(-group // 4) * 4)
    n_groups, planes = columns // group, current_isa().planes
    quants = aligned(planes * n_rows * n_groups * padded + 64, np.int8)
    factors, sums = aligned(n_rows * n_groups, np.float32), aligned(n_rows * n_groups, np.int32)
    quantize_rows(address_of(x), columns, n_rows, columns, group, *map(address_of, (quants, factors, sums)))
    row = 0
    while row < n_rows:
        left, many = n_rows - row, current_isa().wide_tile[1]
        rows = next((size for size in current_isa().row_tiles if size == left or size <= min(left, many)), 1)
        size = n_groups * padded
        tile = quants[planes * row * size :][: planes * rows * size].reshape(size // block, rows, planes, block)
        for r in range(rows):
            found = tile[:, r, 0].reshape(n_groups, padded)
            grouped = x[(row + r) * columns :][:columns].reshape(n_groups, group)
            top = np.abs(grouped).max(1, keepdims=True)
            exact = grouped.astype(np.float64) * 127 / np.where(top > 0, top, 1)
            assert np.abs(found[:, :group] - exact).max() <= 0.5 + 1e-4
            assert np.all(found[:, group:] == 0)
            at = slice(row * n_groups + r, row * n_groups + rows * n_groups, rows)
            assert factors[at] == pytest.approx(top[:, 0] / 127, rel=1e-6)
            assert np.array_equal(sums[at], -128 * found.sum(1, dtype=np.int64))
            if planes == 2:
                assert np.array_equal(tile[:, r, 1].reshape(n_groups, padded), np.abs(found))
        row += rows
