#!/usr/bin/env python3
"""Makes quant_reference.h: random blocks of every quantised tensor type and their values according to the PyPI package
`gguf` (gguf.quants.dequantize, NumPy), which shares no code with memtx.

    pip install gguf && ./make_quant_reference.py > quant_reference.h

The bytes are random but for the f16 scales, which are drawn from (-0.1, 0.1) so that all values are finite.
"""
import sys

import numpy as np
from gguf import GGMLQuantizationType as Type
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

SEED = 2203
N_BLOCKS = {32: 3, 256: 1}
# Where a block's f16 scales stand.
SCALES = {
    Type.F16: [], Type.BF16: [], Type.Q4_0: [0], Type.Q4_1: [0, 2], Type.Q5_0: [0], Type.Q5_1: [0, 2], Type.Q8_0: [0],
    Type.Q4_K: [0, 2], Type.Q5_K: [0, 2], Type.Q6_K: [208],
}


def make_blocks(rng, type_):
    n_values, n_bytes = GGML_QUANT_SIZES[type_]
    if n_values == 1:  # the half types: any finite number
        values = rng.normal(size=32).astype(np.float32)
        return values.astype(np.float16).view(np.uint8) if type_ == Type.F16 else (
            (values.view(np.uint32) >> 16).astype(np.uint16).view(np.uint8))
    blocks = rng.integers(0, 256, size=(N_BLOCKS[n_values], n_bytes), dtype=np.uint8)
    for at in SCALES[type_]:
        scales = rng.uniform(-0.1, 0.1, size=len(blocks)).astype(np.float16)
        blocks[:, at:at + 2] = scales.view(np.uint8).reshape(-1, 2)
    return blocks.reshape(-1)


def print_array(declaration, items, form, per_line):
    print(f"static const {declaration} = {{")
    for i in range(0, len(items), per_line):
        print("    " + " ".join(form(x) + "," for x in items[i:i + per_line]))
    print("};\n")


def main():
    rng = np.random.default_rng(SEED)
    print("/* Made by make_quant_reference.py; do not edit. Values are the bits of float32. */\n/* clang-format off */")
    print("#ifndef MEMTX_QUANT_REFERENCE_H\n#define MEMTX_QUANT_REFERENCE_H\n")
    print("#include <stddef.h>\n#include <stdint.h>\n")
    rows = []
    for type_ in SCALES:
        blocks = make_blocks(rng, type_)
        values = dequantize(blocks, type_).astype(np.float32).reshape(-1)
        assert np.isfinite(values).all()
        name = type_.name.lower()
        print_array(f"unsigned char {name}_bytes[{len(blocks)}]", blocks, lambda x: f"0x{x:02x}", 18)
        print_array(f"uint32_t {name}_values[{len(values)}]", values.view(np.uint32), lambda x: f"0x{x:08x}", 9)
        rows.append(f"    {{{int(type_)}, {name}_bytes, {name}_values, {len(values)}}},")
    print("static const struct quant_reference {\n    int type;\n    const unsigned char *bytes;")
    print("    const uint32_t *values;\n    size_t n_values;\n} quant_references[] = {")
    print("\n".join(rows))
    print("};\n\n#endif")


if __name__ == "__main__":
    sys.exit(main())
