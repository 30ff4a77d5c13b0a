"""Rewrites a GGUF file with its Q4_1 matrices as Q4_0; everything else stays as it is.

python gguf_q4_0.py IN.gguf OUT.gguf
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import sys
from pathlib import Path

import gguf
from gguf.quants import dequantize, quantize

Q4_0 = gguf.GGMLQuantizationType.Q4_0
Q4_1 = gguf.GGMLQuantizationType.Q4_1
# Written by GGUFWriter itself.
OWN_KEYS = {"general.architecture", "general.file_type", "general.quantization_version"}


def copy_metadata(reader: gguf.GGUFReader, writer: gguf.GGUFWriter) -> None:
    for key, item in reader.fields.items():
        if key.startswith("GGUF.") or key in OWN_KEYS:
            continue
        sub_type = item.types[-1] if item.types[0] == gguf.GGUFValueType.ARRAY else None
        writer.add_key_value(key, item.contents(), item.types[0], sub_type=sub_type)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_0)
    writer.add_quantization_version(gguf.GGML_QUANT_VERSION)


def rewrite(source: Path, target: Path) -> None:
    reader = gguf.GGUFReader(source)
    part = target.with_suffix(".part")
    writer = gguf.GGUFWriter(part, str(reader.fields["general.architecture"].contents()))
    copy_metadata(reader, writer)
    for tensor in reader.tensors:
        data, kind = tensor.data, tensor.tensor_type
        if kind == Q4_1:
            data, kind = quantize(dequantize(data, kind), Q4_0), Q4_0
        writer.add_tensor(tensor.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.rename(target)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    rewrite(Path(sys.argv[1]), Path(sys.argv[2]))
