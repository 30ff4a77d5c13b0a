"""Makes the golden files of the block formats.

Needs numpy, gguf and llama-cpp-python. For each format: NAME.golden, blocks and then the f32 bits
that the gguf package decodes them to. For encoding: samples of weights (*.f32), the importance of
each column, and rmse.txt with the error that the better of the gguf package and llama.cpp reaches.
"""

from __future__ import annotations

import ctypes
import importlib.util
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType
from gguf.constants import GGML_QUANT_SIZES
from numpy.typing import NDArray

FOLDER = Path(__file__).parent
FORMATS = [
    "F32",
    "F16",
    "BF16",
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "IQ4_NL",
]
# Byte offsets of the f16 scales inside a block.
SCALES: dict[str, list[int]] = {
    "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0], "Q2_K": [80, 82],
    "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0],
}  # fmt: skip
# Zero, the smallest and largest subnormal, the smallest normal, one, the largest; and negatives.
EXTREME_HALVES = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x0400, 0x8400, 0x3C00, 0x7BFF, 0xFBFF]
COLUMNS = 512  # a row; importance is given for one


def decoded(blocks: NDArray[np.uint8], kind: GGMLQuantizationType) -> NDArray[np.float32]:
    return np.asarray(gguf.quants.dequantize(blocks, kind), dtype=np.float32).ravel()


def random_blocks(name: str, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Random bytes whose f16 scales are finite, some of them extreme."""
    block, size = GGML_QUANT_SIZES[GGMLQuantizationType[name]]
    if name == "F32":
        values = rng.standard_normal(256) * 10.0 ** rng.integers(-44, 38, 256)
        return values.astype(np.float32).view(np.uint8).reshape(-1, size)
    if block == 1:
        # Every exponent and sign, infinities left out.
        halves = rng.integers(0, 1 << 16, 1024, dtype=np.uint16)
        mask = 0x7C00 if name == "F16" else 0x7F80
        halves[(halves & mask) == mask] ^= 0x0400 if name == "F16" else 0x0080
        halves[: len(EXTREME_HALVES)] = EXTREME_HALVES
        return halves.view(np.uint8).reshape(-1, size)
    count = 40 if block == 32 else 10
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for place in SCALES[name]:
        halves = rng.integers(0, 1 << 16, count, dtype=np.uint16)
        halves[(halves & 0x7C00) == 0x7C00] ^= 0x0400
        # Extremes in the first blocks, in another order for the second scale.
        halves[: len(EXTREME_HALVES)] = np.roll(EXTREME_HALVES, place)
        blocks[:, place : place + 2] = halves[:, None].view(np.uint8)
    return blocks


def make_decoding(rng: np.random.Generator) -> None:
    for name in FORMATS:
        blocks = random_blocks(name, rng)
        weights = decoded(blocks, GGMLQuantizationType[name])
        assert np.isfinite(weights).all(), name
        (FOLDER / f"{name.lower()}.golden").write_bytes(blocks.tobytes() + weights.tobytes())


def load_ggml() -> ctypes.CDLL:
    spec = importlib.util.find_spec("llama_cpp")
    if spec is None or spec.origin is None:
        raise SystemExit("llama-cpp-python is needed for the errors of llama.cpp's quantizers")
    library = ctypes.CDLL(str(Path(spec.origin).parent / "lib" / "libggml-base.so"))
    library.ggml_quantize_chunk.restype = ctypes.c_size_t
    library.ggml_quantize_chunk.argtypes = [
        ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p,
        ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_void_p,
    ]  # fmt: skip
    return library


def llama_round_trip(
    library: ctypes.CDLL,
    name: str,
    weights: NDArray[np.float32],
    importance: NDArray[np.float32] | None,
) -> NDArray[np.float32]:
    kind = GGMLQuantizationType[name]
    block, size = GGML_QUANT_SIZES[kind]
    rows = weights.size // COLUMNS
    out = np.empty((rows, COLUMNS // block * size), dtype=np.uint8)
    factors = importance.ctypes.data if importance is not None else None
    library.ggml_quantize_chunk(
        int(kind), weights.ctypes.data, out.ctypes.data, 0, rows, COLUMNS, factors
    )
    return decoded(out, kind)


def package_round_trip(name: str, weights: NDArray[np.float32]) -> NDArray[np.float32] | None:
    kind = GGMLQuantizationType[name]
    try:
        return decoded(gguf.quants.quantize(weights.reshape(-1, COLUMNS), kind), kind)
    except NotImplementedError:
        return None


def make_encoding(rng: np.random.Generator) -> None:
    shape = (4, COLUMNS)
    samples = {
        "normal": rng.standard_normal(shape) * 0.05,
        "heavy": rng.standard_t(4, shape) * 0.02,
        "uniform": rng.random(shape) - 0.5,
        "columns": rng.standard_normal(shape) * np.exp(rng.standard_normal((1, COLUMNS)) * 0.6),
    }
    importance = np.exp(rng.standard_normal(COLUMNS)).astype(np.float32)
    (FOLDER / "importance.f32").write_bytes(importance.tobytes())
    library = load_ggml()
    lines = [
        "# format, sample, RMSE, RMSE weighted by importance (both encoded for their own goal)"
    ]
    for sample, values in samples.items():
        weights = values.astype(np.float32).ravel()
        (FOLDER / f"{sample}.f32").write_bytes(weights.tobytes())
        weighting = np.tile(importance, weights.size // COLUMNS)

        def error(result: NDArray[np.float32], weighted: bool) -> float:
            square = (result.astype(np.float64) - weights) ** 2  # noqa: B023
            return float(np.sqrt(np.mean(square * weighting if weighted else square)))  # noqa: B023

        for name in FORMATS[1:]:
            results = [package_round_trip(name, weights)]
            guided = list(results)
            if GGML_QUANT_SIZES[GGMLQuantizationType[name]][0] > 1:
                results.append(llama_round_trip(library, name, weights, None))
                guided.append(llama_round_trip(library, name, weights, importance))
            plain = min(error(result, False) for result in results if result is not None)
            weighted = min(error(result, True) for result in guided if result is not None)
            lines.append(f"{name.lower()} {sample} {plain:.7e} {weighted:.7e}")
    (FOLDER / "rmse.txt").write_text("\n".join(lines) + "\n")


def main() -> None:
    rng = np.random.default_rng(20260101)
    make_decoding(rng)
    make_encoding(rng)


if __name__ == "__main__":
    main()
