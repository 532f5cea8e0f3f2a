"""SIMD vectors as Numba values: the vocabulary that the engine's kernels (and train's CPU attention) are written in.

isa.py says what the processor can do, vectors.py holds the values and arithmetic, memory.py loads and stores, atomics.py what
threads need to meet, emit.py loops in LLVM code, product_tile.py a matrix product in registers, kernel.py the decorators for
compiled functions. machine_code.py keeps what was compiled; importing anything here but it and isa.py imports Numba.
"""
