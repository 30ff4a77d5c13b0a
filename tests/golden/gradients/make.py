"""Golden gradients of the mean next-token cross entropy of the small models in tests/golden/models
with respect to every weight, by torch's autograd in transformers, float32.

    python make.py     # writes NAME.bin and NAME.json beside this file

NAME.json: {"loss": mean loss, "tensors": [{"name": GGUF's name, "norm": of the whole gradient,
"count": its elements, "samples": how many of them follow}]}; NAME.bin: the samples, f32, one tensor
after the other: every element where there are at most SAMPLES, else those at i * count // SAMPLES.
Rows are in GGUF's order (llama's queries and keys turn neighbours there, not halves).
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "models"
SAMPLES = 512
FAMILIES = ("llama", "gemma3", "qwen2", "qwen3", "gpt2")

LAYER = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
GEMMA = {
    "post_attention_layernorm": "post_attention_norm",
    "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}
GPT2 = {
    "ln_1": "attn_norm",
    "ln_2": "ffn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
TOP = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
    "transformer.wte.weight": "token_embd.weight",
    "transformer.wpe.weight": "position_embd.weight",
    "transformer.ln_f.weight": "output_norm.weight",
    "transformer.ln_f.bias": "output_norm.bias",
}


def gguf_name(family: str, name: str) -> str:
    """The name of a parameter in a GGUF file."""
    if name in TOP:
        return TOP[name]
    match = re.fullmatch(r"(?:model\.layers|transformer\.h)\.(\d+)\.(.+)\.(weight|bias)", name)
    if match is None:
        raise ValueError(f"no GGUF name for {name}")
    table = {**LAYER, **(GEMMA if family == "gemma3" else {}), **GPT2}
    return f"blk.{match[1]}.{table[match[2]]}.{match[3]}"


def neighbours(gradient: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head from halves to pairs, as GGUF's llama has queries and keys."""
    rows, columns = gradient.shape
    split = gradient.reshape(heads, 2, rows // heads // 2, columns)
    return split.swapaxes(1, 2).reshape(rows, columns)


def make(family: str) -> None:
    """Writes the golden files of one model."""
    folder = MODELS / family
    model = AutoModelForCausalLM.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager"
    )
    model.eval()
    tokens = torch.tensor([json.loads((folder / "tokens.json").read_text())["tokens"]])
    logits = model(tokens).logits[0, :-1]
    loss = torch.nn.functional.cross_entropy(logits, tokens[0, 1:])
    loss.backward()
    tensors = []
    samples = []
    for name, parameter in model.named_parameters():
        if parameter.grad is None:
            raise ValueError(f"no gradient of {name}")
        gradient = parameter.grad.detach().numpy()
        if re.search(r"c_(attn|proj|fc)\.weight", name):
            gradient = gradient.T
        if family == "llama" and re.search("[qk]_proj", name):
            config = model.config
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            gradient = neighbours(gradient, heads)
        flat = np.ascontiguousarray(gradient, dtype=np.float32).ravel()
        count = min(flat.size, SAMPLES)
        samples.append(flat[np.arange(count) * flat.size // count])
        tensors.append(
            {
                "name": gguf_name(family, name),
                "norm": float(np.linalg.norm(flat.astype(np.float64))),
                "count": int(flat.size),
                "samples": count,
            }
        )
    np.concatenate(samples).astype("<f4").tofile(HERE / f"{family}.bin")
    text = json.dumps({"loss": float(loss.detach()), "tensors": tensors}, indent=1)
    (HERE / f"{family}.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    torch.manual_seed(0)
    for each in FAMILIES:
        make(each)
