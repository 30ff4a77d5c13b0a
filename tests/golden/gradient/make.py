"""Results and gradients of hone's ops by PyTorch's autograd, in double precision.

Operands come from a formula that the test repeats, so only answers are kept: cases.json says what
was computed, cases.bin has the results and then the gradients of each case as f32.

    python3 make.py    (needs torch; any version with scaled_dot_product_attention)
"""

# SPDX-License-Identifier: Apache-2.0
import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

HERE = Path(__file__).parent

Attributes = dict[str, float | int | bool | list[int]]


@dataclass
class Case:
    """An op on operands of these shapes; integers are given, `wanted` are differentiated."""

    op: str
    shapes: list[list[int]]
    compute: Callable[..., Tensor]
    attributes: Attributes = field(default_factory=dict)
    integers: dict[int, list[int]] = field(default_factory=dict)
    wanted: list[int] = field(default_factory=lambda: [0])


def values(shape: list[int], seed: int) -> Tensor:
    """Numbers between -1.5 and 1.5 that look like none in particular."""
    index = torch.arange(math.prod(shape), dtype=torch.float64)
    return (1.5 * torch.sin(0.7 * index + 1.9 * seed + 0.3)).reshape(shape)


def rope(x: Tensor, table: Tensor, head: int, interleaved: bool) -> Tensor:
    """Turns pairs of each head by (cosine, sine) of the token, after RoFormer, equation 34."""
    tokens, half = x.shape[0], table.shape[1] // 2
    cosine, sine = table[:, None, :half], table[:, None, half:]
    heads = x.reshape(tokens, -1, head)
    turned, rest = heads[..., : 2 * half], heads[..., 2 * half :]
    if interleaved:
        a, b = turned[..., 0::2], turned[..., 1::2]
    else:
        a, b = turned[..., :half], turned[..., half:]
    first, second = a * cosine - b * sine, a * sine + b * cosine
    if interleaved:
        both = torch.stack([first, second], dim=-1).flatten(-2)
    else:
        both = torch.cat([first, second], dim=-1)
    return torch.cat([both, rest], dim=-1).reshape(tokens, -1)


def attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    offsets: list[int],
    head: int,
    scale: float,
    window: int,
    cap: float,
) -> Tensor:
    """Each sequence by itself: PyTorch's own attention, or written out where scores are capped."""
    out = []
    for begin, end in itertools.pairwise(offsets):
        queries, keys, rows = (
            x[begin:end].reshape(end - begin, -1, head).transpose(0, 1) for x in (q, k, v)
        )
        group = queries.shape[0] // keys.shape[0]
        keys, rows = keys.repeat_interleave(group, 0), rows.repeat_interleave(group, 0)
        position = torch.arange(end - begin)
        distance = position[:, None] - position[None, :]
        mask = (distance >= 0) & ((distance < window) if window > 0 else (distance >= 0))
        if cap > 0:
            scores = cap * torch.tanh(queries @ keys.transpose(1, 2) * scale / cap)
            weights = torch.softmax(scores.masked_fill(~mask, -math.inf), dim=-1)
            part = weights @ rows
        else:
            part = functional.scaled_dot_product_attention(
                queries, keys, rows, attn_mask=mask, scale=scale
            )
        out.append(part.transpose(0, 1).reshape(end - begin, -1))
    return torch.cat(out)


def sequence_case(
    offsets: list[int], heads: int, kv_heads: int, head: int, window: int = 0, cap: float = 0.0
) -> Case:
    """Attention among the tokens of ragged sequences."""
    attributes: Attributes = {"heads": heads, "scale": 0.3}
    if window > 0:
        attributes["window"] = window
    if cap > 0:
        attributes["soft_cap"] = cap
    tokens = offsets[-1]
    return Case(
        "sequence_attention",
        [
            [tokens, heads * head],
            [tokens, kv_heads * head],
            [tokens, kv_heads * head],
            [len(offsets)],
        ],
        lambda q, k, v, _: attention(q, k, v, offsets, head, 0.3, window, cap),
        attributes,
        {3: offsets},
        [0, 1, 2],
    )


def cases() -> list[Case]:
    """One or two cases for each op that has a gradient and that PyTorch knows."""
    rows, row = [5, 24], [24]
    indices = [3, 0, 3, 6]
    return [
        Case("add", [rows, row], torch.add, wanted=[0, 1]),
        Case("multiply", [rows, rows], torch.mul, wanted=[0, 1]),
        Case("multiply", [rows, row], torch.mul, wanted=[0, 1]),
        Case("scale", [rows], lambda x: x * 2.5, {"factor": 2.5}),
        Case("silu", [rows], functional.silu),
        Case("gelu", [rows], lambda x: functional.gelu(x, approximate="tanh")),
        Case("tanh_cap", [rows], lambda x: 1.25 * torch.tanh(x / 1.25), {"cap": 1.25}),
        Case("softmax", [rows], lambda x: torch.softmax(x, dim=-1)),
        Case(
            "rms_norm",
            [rows, row],
            lambda x, w: functional.rms_norm(x, (24,), w, 1e-3),
            {"epsilon": 1e-3},
            wanted=[0, 1],
        ),
        Case(
            "layer_norm",
            [rows, row, row],
            lambda x, w, b: functional.layer_norm(x, (24,), w, b, 1e-3),
            {"epsilon": 1e-3},
            wanted=[0, 1, 2],
        ),
        Case("reshape", [rows], lambda x: x.reshape(15, 8), {"shape": [15, 8]}),
        Case("columns", [rows], lambda x: x[:, 5:12], {"start": 5, "count": 7}),
        Case(
            "gather",
            [[7, 24], [4]],
            lambda table, _: functional.embedding(torch.tensor(indices), table),
            integers={1: indices},
        ),
        Case("rope", [rows, [5, 6]], lambda x, t: rope(x, t, 8, False), {"head_size": 8}),
        Case(
            "rope",
            [rows, [5, 8]],
            lambda x, t: rope(x, t, 8, True),
            {"head_size": 8, "interleaved": True},
        ),
        sequence_case([0, 1, 8, 41], 4, 2, 16),
        sequence_case([0, 33, 40], 3, 1, 24, window=5),
        sequence_case([0, 7, 30], 2, 2, 8, cap=0.8),
    ]


def main() -> None:
    """Writes both files."""
    listed = []
    answers = bytearray()
    for case in cases():
        operands = []
        for i, shape in enumerate(case.shapes):
            if i in case.integers:
                operands.append(torch.tensor(case.integers[i]))
            else:
                operands.append(values(shape, i + 1).requires_grad_(i in case.wanted))
        result = case.compute(*operands)
        result.backward(values(list(result.shape), 17))
        for tensor in [result.detach(), *(operands[i].grad for i in case.wanted)]:
            answers += tensor.to(torch.float32).contiguous().numpy().tobytes()
        listed.append(
            {
                "op": case.op,
                "shapes": case.shapes,
                "attributes": case.attributes,
                "integers": {str(i): numbers for i, numbers in case.integers.items()},
                "wanted": case.wanted,
            }
        )
    (HERE / "cases.json").write_text(
        json.dumps({"torch": torch.__version__, "cases": listed}, indent=1) + "\n"
    )
    (HERE / "cases.bin").write_bytes(bytes(answers))


if __name__ == "__main__":
    main()
