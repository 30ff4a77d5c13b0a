"""Golden inputs for the model families: small random Hugging Face folders with the logits that
`transformers` computes from them, and samples of the logits of the two real models.

    python make.py tiny            # the folders beside this file
    python make.py real [FOLDER]   # FOLDER holds the GGUF files (default: hone's cache)

Every folder holds config.json and safetensors as a user would have them, plus
  tokens.json   {"tokens": [T ids], "vocabulary": V, "loss": mean next-token cross entropy}
  logits.bin    (T, V) little-endian f32, the whole sequence in one prefill.
A real model NAME has NAME.json (tokens, argmax at every position and its lead over the second,
sampled positions, stride) and NAME.bin: (positions, samples) f32, sample i being vocabulary entry
i * stride.
transformers reads the stored files itself, computes in float32, attention "eager".
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
TOKENS = 24  # three times the sliding window of the gemma3 folders
SAMPLES = 2048
Config = dict[str, Any]


@dataclass
class Folder:
    """One tiny model: what its config.json says and how its weights are stored."""

    name: str
    config: Config
    dtype: torch.dtype
    shards: int = 1


LLAMA: Config = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 160,
    "max_position_embeddings": 128,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-3,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GEMMA: Config = {
    "architectures": ["Gemma3ForCausalLM"],
    "model_type": "gemma3_text",
    "hidden_activation": "gelu_pytorch_tanh",
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-3,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
    "sliding_window": 8,
    "attention_bias": False,
    "vocab_size": 192,
}
FOLDERS = [
    # The older spelling (rope_theta at the top), untied, head_dim absent.
    Folder("llama", {**LLAMA, "rope_theta": 1207.0, "tie_word_embeddings": False}, torch.bfloat16),
    # Frequencies scaled as Llama 3 does; wavelengths fall in all three of its bands. Tied, sharded.
    Folder(
        "llama-rope3",
        {
            **LLAMA,
            "rope_theta": 3001.0,
            "tie_word_embeddings": True,
            "head_dim": 16,
            "num_key_value_heads": 1,
            "rope_scaling": {
                "rope_type": "llama3",
                "factor": 4.0,
                "low_freq_factor": 1.0,
                "high_freq_factor": 4.0,
                "original_max_position_embeddings": 64,
            },
        },
        torch.bfloat16,
        shards=2,
    ),
    # The default pattern (each sixth layer global) spelled as layer_types, newer rope spelling,
    # head_dim * heads != hidden_size, scale of the scores not from head_dim.
    Folder(
        "gemma3",
        {
            **GEMMA,
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 7,
            "num_attention_heads": 4,
            "num_key_value_heads": 1,
            "head_dim": 16,
            "query_pre_attn_scalar": 24,
            "layer_types": ["sliding_attention"] * 5 + ["full_attention"] + ["sliding_attention"],
            "rope_parameters": {
                "full_attention": {"rope_type": "default", "rope_theta": 811.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 57.0},
            },
        },
        torch.bfloat16,
    ),
    # The older spelling: sliding_window_pattern, rope_local_base_freq; scaled global layers.
    Folder(
        "gemma3-linear",
        {
            **GEMMA,
            "hidden_size": 64,
            "intermediate_size": 96,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "sliding_window_pattern": 3,
            "rope_theta": 613.0,
            "rope_local_base_freq": 71.0,
            "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        },
        torch.bfloat16,
    ),
    Folder(
        "qwen2",
        {
            **LLAMA,
            "architectures": ["Qwen2ForCausalLM"],
            "model_type": "qwen2",
            "rms_norm_eps": 1e-3,
            "rope_theta": 521.0,
            "tie_word_embeddings": True,
            "use_sliding_window": False,
            "sliding_window": 64,
            "max_window_layers": 2,
        },
        torch.float16,
    ),
    Folder(
        "qwen3",
        {
            **LLAMA,
            "architectures": ["Qwen3ForCausalLM"],
            "model_type": "qwen3",
            "hidden_size": 48,
            "head_dim": 32,
            "attention_bias": False,
            "rms_norm_eps": 1e-3,
            "rope_theta": 701.0,
            "tie_word_embeddings": False,
        },
        torch.bfloat16,
    ),
    Folder(
        "gpt2",
        {
            "architectures": ["GPT2LMHeadModel"],
            "model_type": "gpt2",
            "n_embd": 48,
            "n_head": 3,
            "n_layer": 2,
            "n_inner": 128,
            "n_positions": 40,
            "n_ctx": 40,
            "vocab_size": 150,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": 1e-3,
            "bos_token_id": 149,
            "eos_token_id": 149,
        },
        torch.float32,
    ),
]


def randomize(model: torch.nn.Module, gemma: bool, generator: torch.Generator) -> None:
    """Weights that make every term count: norms away from one, biases away from zero, products of
    unit variance. Gemma stores a norm's weight less one."""
    for name, parameter in model.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        is_norm = "norm" in name or ".ln_" in name
        if parameter.dim() == 1:
            center = 1.0 if is_norm and name.endswith("weight") and not gemma else 0.0
            value = center + 0.3 * noise
        elif "embed" in name or "wte" in name or "wpe" in name:
            value = noise * (0.15 if gemma else 0.5)
        else:
            # Conv1D of gpt2 keeps (in, out); Linear keeps (out, in).
            fan_in = parameter.shape[0] if "c_" in name else parameter.shape[1]
            value = noise * fan_in**-0.5
        with torch.no_grad():
            parameter.copy_(value)


def store(folder: Folder, path: Path) -> None:
    """config.json and the weights, as one file or as shards with an index."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    dtype = str(folder.dtype).removeprefix("torch.")
    text = json.dumps({**folder.config, "torch_dtype": dtype}, indent=2)
    (path / "config.json").write_text(text + "\n")
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(path), dtype=torch.float32)
    generator = torch.Generator().manual_seed(sum(map(ord, folder.name)))
    gemma = folder.config["model_type"].startswith("gemma")
    randomize(model, gemma, generator)
    tied = model.config.tie_word_embeddings
    state = {
        name: value.to(folder.dtype).contiguous()
        for name, value in model.state_dict().items()
        if not (tied and name == "lm_head.weight")
    }
    metadata = {"format": "pt"}
    if folder.shards == 1:
        save_file(state, path / "model.safetensors", metadata=metadata)
        return
    names = list(state)
    weight_map: dict[str, str] = {}
    for shard in range(folder.shards):
        file = f"model-{shard + 1:05d}-of-{folder.shards:05d}.safetensors"
        first, last = (len(names) * (shard + k) // folder.shards for k in (0, 1))
        part = names[first:last]
        weight_map |= dict.fromkeys(part, file)
        save_file({name: state[name] for name in part}, path / file, metadata=metadata)
    size = sum(value.numel() * value.element_size() for value in state.values())
    index = {"metadata": {"total_size": size}, "weight_map": weight_map}
    (path / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")


def make_tiny(folder: Folder) -> None:
    path = HERE / folder.name
    store(folder, path)
    model = AutoModelForCausalLM.from_pretrained(
        path, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    generator = torch.Generator().manual_seed(len(folder.name))
    tokens = torch.randint(3, model.config.vocab_size, (1, TOKENS), generator=generator)
    with torch.no_grad():
        output = model(tokens, labels=tokens)
    logits = output.logits[0].float().numpy()
    (path / "logits.bin").write_bytes(logits.astype("<f4").tobytes())
    record = {
        "tokens": tokens[0].tolist(),
        "vocabulary": model.config.vocab_size,
        "loss": float(output.loss),
    }
    (path / "tokens.json").write_text(json.dumps(record) + "\n")
    size = sum(file.stat().st_size for file in path.iterdir())
    print(f"{folder.name}: {size} bytes, logits std {logits.std():.3f}, loss {record['loss']:.4f}")


# PROMPT_TEXT as llama.cpp's tokenizer cuts it for each of the two (gemma adds its BOS).
PROMPT_TEXT = (
    "A language model reads a sequence of tokens and predicts, for each position, how likely every "
    "token of its vocabulary is to come next. It was 1 of 3.\n"
)
# fmt: off
SMOLLM_PROMPT = [
    49, 1789, 1743, 12927, 253, 5972, 282, 17837, 284, 23555, 28, 327, 971, 2548, 28, 638, 2003,
    897, 9624, 282, 624, 8374, 314, 288, 1690, 1867, 30, 657, 436, 216, 33, 282, 216, 35, 30, 198,
]
GEMMA_PROMPT = [
    2, 236776, 5192, 2028, 20838, 496, 7501, 529, 21739, 532, 52298, 236764, 573, 1546, 2939,
    236764, 1217, 4547, 1418, 8369, 529, 1061, 38038, 563, 531, 2229, 2148, 236761, 1030, 691,
    236743, 236770, 529, 236743, 236800, 236761, 107,
]
# fmt: on
REAL = {
    "smollm2-135m-q4_1": ("smollm2-135m-instruct-q4_1.gguf", SMOLLM_PROMPT),
    "gemma-3-270m-q4_k_m": ("gemma-3-270m-q4_k_m.gguf", GEMMA_PROMPT),
}


def load_real(file: Path, check: bool = True) -> torch.nn.Module:
    """The GGUF file's weights, dequantized, in float32; each tensor checked against `gguf`."""
    model = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    if check:
        check_dequantized(model, file)
    return model


def check_dequantized(model: torch.nn.Module, file: Path) -> None:
    """transformers' own loader permutes rows (llama's q and k) and shifts norms (gemma's): compare
    the sorted values of every tensor, and the tensors themselves where nothing is permuted."""
    parts = {
        "attn_q": "self_attn.q_proj",
        "attn_k": "self_attn.k_proj",
        "attn_v": "self_attn.v_proj",
        "attn_output": "self_attn.o_proj",
        "attn_q_norm": "self_attn.q_norm",
        "attn_k_norm": "self_attn.k_norm",
        "ffn_gate": "mlp.gate_proj",
        "ffn_up": "mlp.up_proj",
        "ffn_down": "mlp.down_proj",
    }
    gemma = "gemma" in file.name
    if gemma:
        parts |= {
            "attn_norm": "input_layernorm",
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        }
    else:
        parts |= {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}
    state = model.state_dict()
    tensors = gguf.GGUFReader(file).tensors
    for tensor in tensors:
        if tensor.name.startswith("blk."):
            _, layer, kind, _ = tensor.name.split(".")
            name = f"model.layers.{layer}.{parts[kind]}.weight"
        else:
            names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}
            name = names[tensor.name.split(".")[0]] + ".weight"
        expected = gguf.quants.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)
        if gemma and "norm" in tensor.name:
            expected = expected - 1
        found = state.pop(name).numpy()
        if ".attn_q.w" in tensor.name or ".attn_k.w" in tensor.name:
            expected, found = np.sort(expected, axis=None), np.sort(found, axis=None)
        if not np.array_equal(expected.reshape(found.shape), found):
            raise SystemExit(f"{file.name}: {tensor.name} was not dequantized as gguf does")
    state.pop("lm_head.weight")
    if state:
        raise SystemExit(f"{file.name}: no tensor for {list(state)}")
    print(f"{file.name}: {len(tensors)} tensors equal to gguf's")


def make_real(name: str, folder: Path) -> None:
    file_name, tokens = REAL[name]
    model = load_real(folder / file_name)
    vocabulary = model.config.vocab_size
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].numpy()
    positions = [0, len(tokens) // 3, 2 * len(tokens) // 3, len(tokens) - 1]
    stride = vocabulary // SAMPLES
    sample = logits[positions, : stride * SAMPLES : stride]
    top = np.sort(logits, axis=1)
    lead = top[:, -1] - top[:, -2]
    record = {
        "file": file_name,
        "text": PROMPT_TEXT,
        "tokens": tokens,
        "vocabulary": vocabulary,
        "argmax": logits.argmax(axis=1).tolist(),
        "lead": [round(float(value), 5) for value in lead],
        "positions": positions,
        "samples": SAMPLES,
        "stride": stride,
    }
    (HERE / f"{name}.json").write_text(json.dumps(record) + "\n")
    (HERE / f"{name}.bin").write_bytes(sample.astype("<f4").tobytes())
    print(f"{name}: smallest lead of the argmax {lead.min():.4f}")


def cache_folder() -> Path:
    root = os.environ.get("HONE_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "hone") / "models"


def main() -> None:
    what = sys.argv[1] if len(sys.argv) > 1 else "tiny"
    torch.use_deterministic_algorithms(True)
    if what == "tiny":
        for folder in FOLDERS:
            make_tiny(folder)
    elif what == "real":
        for name in REAL:
            make_real(name, Path(sys.argv[2]) if len(sys.argv) > 2 else cache_folder())
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
