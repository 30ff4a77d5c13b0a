"""Writes a GGUF file of a llama's shape with random Q4_1 weights, for measuring streams.

python3 make_model.py OUT.gguf [--layers 40] [--hidden 2048] [--vocabulary 32000]
With the defaults 1.2 GB. No tokenizer: for `hone bench`, not for text.
"""

# SPDX-License-Identifier: Apache-2.0
import argparse
import random
import struct
from collections.abc import Iterator
from pathlib import Path

ALIGNMENT = 32
U32, F32, STRING = 4, 6, 8
TYPE_F32, TYPE_Q4_1 = 0, 3


def text(value: str) -> bytes:
    """Length and bytes."""
    data = value.encode()
    return struct.pack("<Q", len(data)) + data


def metadata(key: str, value: str | int | float) -> bytes:
    """A key with its type and value."""
    if isinstance(value, str):
        return text(key) + struct.pack("<I", STRING) + text(value)
    if isinstance(value, int):
        return text(key) + struct.pack("<II", U32, value)
    return text(key) + struct.pack("<If", F32, value)


def q4_1(numbers: int, deviation: float, source: random.Random) -> bytes:
    """Blocks of 32 uniform codes: f16 scale, f16 minimum, 16 bytes."""
    blocks = numbers // 32
    scale = deviation / 4.61  # of the 16 codes' standard deviation
    data = bytearray(20 * blocks)
    for at, byte in enumerate(struct.pack("<ee", scale, -7.5 * scale)):
        data[at::20] = bytes([byte]) * blocks
    for at in range(4, 20):
        data[at::20] = source.randbytes(blocks)
    return bytes(data)


def tensors(args: argparse.Namespace) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes, outermost first, in the order of the file."""
    keys = args.hidden // args.heads * args.kv_heads
    yield "token_embd.weight", (args.vocabulary, args.hidden)
    for layer in range(args.layers):
        block = f"blk.{layer}."
        yield block + "attn_norm.weight", (args.hidden,)
        yield block + "attn_q.weight", (args.hidden, args.hidden)
        yield block + "attn_k.weight", (keys, args.hidden)
        yield block + "attn_v.weight", (keys, args.hidden)
        yield block + "attn_output.weight", (args.hidden, args.hidden)
        yield block + "ffn_norm.weight", (args.hidden,)
        yield block + "ffn_gate.weight", (args.feed_forward, args.hidden)
        yield block + "ffn_up.weight", (args.feed_forward, args.hidden)
        yield block + "ffn_down.weight", (args.hidden, args.feed_forward)
    yield "output_norm.weight", (args.hidden,)
    yield "output.weight", (args.vocabulary, args.hidden)


def product(shape: tuple[int, ...]) -> int:
    """Numbers of a tensor."""
    return shape[0] if len(shape) == 1 else shape[0] * shape[1]


def main() -> None:
    """Writes the file."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", type=Path)
    parser.add_argument("--layers", type=int, default=40)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--feed-forward", type=int, default=5632)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--kv-heads", type=int, default=4)
    parser.add_argument("--vocabulary", type=int, default=32000)
    args = parser.parse_args()
    pairs: dict[str, str | int | float] = {
        "general.architecture": "llama",
        "general.name": "random",
        "llama.embedding_length": args.hidden,
        "llama.block_count": args.layers,
        "llama.attention.head_count": args.heads,
        "llama.attention.head_count_kv": args.kv_heads,
        "llama.feed_forward_length": args.feed_forward,
        "llama.context_length": 2048,
        "llama.vocab_size": args.vocabulary,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
    }
    listed = list(tensors(args))
    header = b"GGUF" + struct.pack("<IQQ", 3, len(listed), len(pairs))
    header += b"".join(metadata(key, value) for key, value in pairs.items())
    offset = 0
    sizes = []
    for name, shape in listed:
        kind = TYPE_F32 if len(shape) == 1 else TYPE_Q4_1
        size = product(shape) * 4 if kind == TYPE_F32 else product(shape) // 32 * 20
        sizes.append(size)
        header += text(name) + struct.pack("<I", len(shape))
        header += b"".join(struct.pack("<Q", extent) for extent in reversed(shape))
        header += struct.pack("<IQ", kind, offset)
        offset += (size + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    source = random.Random(1)
    with args.out.open("wb") as file:
        file.write(header + bytes(-len(header) % ALIGNMENT))
        for (_, shape), size in zip(listed, sizes, strict=True):
            ones = struct.pack("<f", 1.0) * shape[0]
            data = ones if len(shape) == 1 else q4_1(product(shape), 0.02, source)
            file.write(data + bytes(-size % ALIGNMENT))


if __name__ == "__main__":
    main()
