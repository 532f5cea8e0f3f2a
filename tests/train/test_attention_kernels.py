"""The pieces of the compiled attention against numpy, its warm start, and the assembly of its product tile."""

import re
import subprocess
import sys

import numpy as np
import pytest
from llvmlite import ir

from assembly import assembly_of
from llamita.engine.memory import address_of, aligned
from llamita.simd.isa import current_isa
from llamita.simd.kernel import kernel
from llamita.simd.memory import get_bf16, load, load_bf16_8, load_pairs, set_bf16, store, store_8, store_bf16, store_bf16_8
from llamita.simd.product_tile import emit_product_tile, product_rows, product_tile
from llamita.simd.vectors import exp2, turn_pairs
from llamita.train.attention_job import KEY_BLOCK

LARGE_TILE = product_rows(current_isa())[0]


@kernel
def apply_exp2(x, out, n):
    for i in range(0, n, 16):
        store(out, i, exp2(load(x, i)))


@kernel
def narrow(x, out, n):
    for i in range(0, n, 16):
        store_bf16(out, i, load(x, i))
    store_bf16_8(out, n, load(x, 0))
    set_bf16(out, n + 8, np.float32(1.5))


@kernel
def widen(brains, out):
    store_8(out, 0, load_bf16_8(brains, 0))
    return get_bf16(brains, 9)


@kernel
def turn(x, cosines, sines, n_pairs, out):
    store(out, 0, turn_pairs(load(x, 0), load_pairs(cosines, 0, n_pairs), load_pairs(sines, 0, n_pairs)))


@kernel
def multiply_wide(n_rows, out, a, b, initial, n):
    product_tile(n_rows, 16, out, 40, a, 50, 2, b, 24, initial, 0, n)


@kernel
def multiply_narrow(n_rows, out, a, b, n):
    product_tile(n_rows, 8, out, 40, a, 16, 1, b, 24, out, 40, n)


def random(*shape):
    array = aligned(int(np.prod(shape)), np.float32).reshape(shape)
    array[:] = np.random.default_rng(0).standard_normal(shape)
    return array


def test_exp2_is_right_to_two_units_in_the_last_place_and_at_the_ends():
    x = aligned(16 * 1001, np.float32)
    x[16:] = np.linspace(-125.9, 3, 16_000)
    x[:16] = [-np.inf, np.nan, -3e38, -127, -126, 0, -0.0, 1, -1, -0.5, 0.5, -1.5, -1e-30, -2, 2, 127]
    out = aligned(len(x), np.float32)
    apply_exp2(address_of(x), address_of(out), len(x))
    assert np.all(out[:5] == 0)
    expected = np.exp2(x[5:].astype(np.float64))
    assert np.abs(out[5:] / expected - 1).max() < 2.4e-7
    assert out[5] == out[6] == 1


def test_bfloat16_is_rounded_half_to_even_and_no_number_stays_none():
    x = random(64).ravel()
    # ties below an even and an odd number, infinity, no number with all bits set, the largest number
    x[:6].view(np.uint32)[:] = [0x3F808000, 0x3F818000, 0x7F800000, 0x7FFFFFFF, 0x7F7FFFFF, 0x3F80C000]
    out = aligned(64 + 16, np.uint16)
    narrow(address_of(x), address_of(out), 64)
    bits = x.view(np.uint32).astype(np.uint64)
    expected = ((bits + 0x7FFF + (bits >> 16 & 1)) >> 16).astype(np.uint16)
    expected[3] = 0x7FC0
    assert out[:64].tolist() == expected.tolist()
    assert out[64:72].tolist() == expected[:8].tolist()
    assert out[72] == 0x3FC0
    assert not out[73:].any()


def test_bfloat16_is_read_as_the_upper_half_of_float32():
    brains = aligned(16, np.uint16)
    brains[:10] = np.arange(0x3F80, 0x3F8A)
    out = aligned(16, np.float32)
    last = widen(address_of(brains), address_of(out))
    expected = (brains.astype(np.uint32) << 16).view(np.float32)
    assert out[:8].tolist() == expected[:8].tolist()
    assert not out[8:].any()
    assert last == expected[9]


@pytest.mark.parametrize("n_pairs", [1, 3, 4, 8])
def test_pairs_turn_by_their_angles_and_no_table_is_read_beyond_its_end(n_pairs):
    x, angles = random(16), random(8)
    cosines, sines, out = np.full_like(angles, np.nan), np.full_like(angles, np.nan), aligned(16, np.float32)
    cosines[:n_pairs], sines[:n_pairs] = np.cos(angles[:n_pairs]), np.sin(angles[:n_pairs])
    turn(address_of(x), address_of(cosines), address_of(sines), n_pairs, address_of(out))
    turned = (x[::2] + 1j * x[1::2]) * (cosines + 1j * sines)
    expected = np.stack([turned.real, turned.imag], 1).ravel()
    assert np.allclose(out[: 2 * n_pairs], expected[: 2 * n_pairs], atol=1e-6)
    assert not out[2 * n_pairs :].any()


@pytest.mark.parametrize("n", [0, 1, 2, 7, 48])
@pytest.mark.parametrize("n_rows", product_rows(current_isa()))
def test_a_wide_tile_is_a_matrix_product(n_rows, n):
    a, b, initial = random(n_rows, 25, 2), random(50, 24), random(16)  # k two elements apart, rows 50
    a = np.concatenate([a, a, a, a], 1)[:, :50]
    a = np.ascontiguousarray(a).reshape(n_rows, 100)
    flat = np.concatenate([a.ravel(), np.zeros(200, np.float32)])
    out = aligned(n_rows * 40, np.float32).reshape(n_rows, 40)
    multiply_wide(n_rows, address_of(out), address_of(flat), address_of(b), address_of(initial), n)
    rows = np.stack([flat[50 * r : 50 * r + 2 * n : 2] for r in range(n_rows)])
    assert np.allclose(out[:, :16], initial + rows @ b[:n, :16], atol=1e-4)
    assert not out[:, 16:].any()


@pytest.mark.parametrize("n_rows", [LARGE_TILE, 2 * LARGE_TILE])
def test_a_narrow_tile_adds_to_what_is_there(n_rows):
    a, b = random(n_rows, 16), random(16, 24)
    out = random(n_rows, 40)
    before = out.copy()
    multiply_narrow(n_rows, address_of(out), address_of(a), address_of(b), 16)
    assert np.allclose(out[:, :8], before[:, :8] + a @ b[:, :8], atol=1e-4)
    assert np.array_equal(out[:, 8:], before[:, 8:])


@pytest.mark.parametrize(("isa_name", "register"), [("avx512vnni", "zmm"), ("avx2", "ymm"), ("neon", "v")])
def test_all_sums_of_a_tile_stay_in_registers(isa_name, register):
    def emit(builder, isa, arguments):
        emit_product_tile(builder, isa.product_rows, 16, arguments)

    text = assembly_of(isa_name, [ir.IntType(64)] * 10, emit)
    spill = r"\((%rsp|%rbp)\)" if isa_name != "neon" else r"\[sp"
    spills = [line for line in text.splitlines() if re.search(rf"\b%?{register}\d", line) and re.search(spill, line)]
    assert "fma" in text or "fmla" in text
    # the callee of ARM's convention keeps eight registers for its caller: before and after the loop
    assert len([line for line in spills if "str\tq" in line or "mov" in line]) == 0


def test_blocks_of_keys_are_whole_tiles_on_every_processor():
    from llamita.simd.isa import INSTRUCTION_SETS

    assert all(KEY_BLOCK % isa.product_rows == 0 for isa in INSTRUCTION_SETS.values())


def test_a_warm_start_needs_no_numba():
    pytest.importorskip("torch")
    code = """
import sys
from llamita.train.attention import load_work
load_work()
print("numba" in sys.modules)
"""
    answers = [subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True) for _ in range(2)]
    assert answers[1].stdout.strip() == "False"
