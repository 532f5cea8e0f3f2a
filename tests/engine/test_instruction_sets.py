"""Every path: those that this machine can run are forced and compared with numpy; of the others the assembly is looked at."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from assembly import attention_assembly, quantized_assembly, rows_assembly
from engine.cases import CASES, DTYPES, HALF_CACHE_DTYPES
from llamita.engine.float_tile import attention_tiles
from llamita.engine.state import PANELS_Q4_0, PANELS_Q4_1, ROWS_F32, SMALL_BLOCK
from llamita.errors import SettingError
from llamita.simd.isa import INSTRUCTION_SETS, detect_isa, runnable_isas

PRODUCT = {"avx512vnni": "vpdpbusd", "avxvnni": "vpdpbusd", "avx2": "vpmaddubsw", "neon": "sdot"}


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_each_path_that_runs_here_equals_the_reference(name: str):
    if name not in runnable_isas():
        pytest.skip(f"this processor has no {name}")
    environment = os.environ | {"LLAMITA_ISA": name}
    script = Path(__file__).parent / "cases.py"
    done = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=600, check=False)
    lines = done.stdout.splitlines()
    n_half = len(HALF_CACHE_DTYPES) * INSTRUCTION_SETS[name].has_half_cache
    assert len(lines) == len(CASES) * (len(DTYPES) + n_half + 1), done.stderr[-2000:]
    assert [line for line in lines if not line.endswith("right")] == []


def test_a_path_that_cannot_run_here_is_refused(monkeypatch):
    monkeypatch.setenv("LLAMITA_ISA", "avx1024")
    with pytest.raises(SettingError, match="LLAMITA_ISA: found avx1024, expected one that this machine can run"):
        detect_isa()


def products(isa: str, panels: int, rows: int) -> int:
    """Instructions of one block of 32 inputs that an ideal micro-kernel needs: registers of 16 lanes x steps x rows."""
    registers = {"avx512vnni": 1, "avxvnni": 2, "avx2": 2, "neon": 4}[isa]
    return registers * panels * rows * 8


@pytest.mark.parametrize("name", PRODUCT)
def test_int8_tiles_are_made_of_the_product_instruction(name: str):
    for panels, rows in INSTRUCTION_SETS[name].quantized_tiles:
        text = quantized_assembly(name, panels, rows)
        found = len(re.findall(rf"\b{PRODUCT[name]}\b", text))
        assert found >= products(name, panels, rows)
        assert found % products(name, panels, rows) == 0  # LLVM may unroll blocks


@pytest.mark.parametrize("kind", [PANELS_Q4_0, PANELS_Q4_1])
@pytest.mark.parametrize("name", PRODUCT)
def test_4_bit_tiles_multiply_halves_as_they_are(name: str, kind: int):
    for panels, rows in INSTRUCTION_SETS[name].quantized_tiles:
        text = quantized_assembly(name, panels, rows, kind)
        found = len(re.findall(rf"\b{PRODUCT[name]}\b", text))
        expected = products(name, panels, rows) // (1 if rows == 1 else 4)  # several rows take a loop over four words
        assert found >= expected
        assert found % expected == 0
        assert not re.search("psign|pabs", text)


def test_4_bit_products_of_avx2_are_widened_once_a_group():
    text = quantized_assembly("avx2", 1, 4, PANELS_Q4_0)
    assert len(re.findall("vpmaddubsw", text)) == 16  # in the loop: no row's weights are kept for the next
    assert len(re.findall("vpmaddwd", text)) == 8
    assert len(re.findall("vpmaddubsw", quantized_assembly("avx2", 1, 1, PANELS_Q4_0))) == 16


def spills(text: str) -> int:
    """Vector registers that are written to the stack."""
    return len(re.findall(r"vmov\w+\s+%[yz]mm\d+, -?\d*\(%rsp\)", text)) + len(re.findall(r"\bst[rp]\s+q\d+.*\[sp", text))


def test_the_avx512_tiles_use_full_registers_and_do_not_spill_in_the_inner_loop():
    for panels, rows in INSTRUCTION_SETS["avx512vnni"].quantized_tiles:
        text = quantized_assembly("avx512vnni", panels, rows)
        assert len(re.findall(r"vpdpbusd.*%zmm", text)) == len(re.findall("vpdpbusd", text))
        assert spills(text) <= 4  # around the loop, not in it: 96 products in a block of the largest tile


def test_avx512_products_take_activations_by_broadcast_from_memory_in_decode():
    assert len(re.findall(r"vpdpbusd.*\{1to16\}", quantized_assembly("avx512vnni", 1, 1))) >= 8


@pytest.mark.parametrize("name", PRODUCT)
def test_float_and_attention_tiles_are_made_of_fused_multiply_adds(name: str):
    isa = INSTRUCTION_SETS[name]
    fused = r"vfmadd|fmla"
    for n_weights, n_rows in isa.float_tiles:
        assert len(re.findall(fused, rows_assembly(name, ROWS_F32, n_weights, n_rows))) >= n_weights * n_rows
    for n_rows, n_columns in attention_tiles(isa):
        assert len(re.findall(fused, attention_assembly(name, n_rows, n_columns, 4))) >= 16 * n_rows * n_columns
        text = attention_assembly(name, n_rows, n_columns, 2)
        assert len(re.findall(fused, text)) >= 16 * n_rows * n_columns
        assert len(re.findall(r"vcvtph2ps|fcvtl", text)) >= 16 * n_columns  # and no library is called for them


def test_the_plain_path_needs_nothing_beyond_the_oldest_64_bit_processor():
    text = quantized_assembly("plain", 1, 1, block=SMALL_BLOCK) + rows_assembly("plain", ROWS_F32, 1, 1)
    assert not re.search(r"%[yz]mm|vpdp|pmaddubsw|vfmadd", text)
    assert "fmaf" not in text
