"""Golden adapters: random PEFT adapters of the small golden models, with the logits that
`transformers` and `peft` compute with them.

    python make.py tiny           # the folders beside this file
    python make.py real [FOLDER]  # FOLDER holds the GGUF files (default: hone's cache)

Every folder is a PEFT adapter as a user would have it (adapter_config.json and
adapter_model.safetensors), of ../models/NAME (the folder's name without "-dora"), plus
  logits.bin   (T, V) little-endian f32: of ../models/NAME/tokens.json, in one prefill.
`real` makes smollm2.json: the answer of SmolLM2 without and with a random GGUF adapter by
llama.cpp, the lead of each token over the second, and some logits of the first. The adapter's
numbers come from a rule that the test repeats, so that it needs no file.
Everything in float32, attention "eager".
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "models"

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
# Name of the golden model (and of the form after it) to the adapter's configuration; each has what
# another has not.
ADAPTERS: dict[str, dict[str, Any]] = {
    "llama": {"r": 4, "lora_alpha": 6, "target_modules": LINEAR},
    # Ranks and alphas by module.
    "llama-rope3": {
        "r": 3,
        "lora_alpha": 8,
        "target_modules": LINEAR,
        "rank_pattern": {"q_proj": 5, "model.layers.1.mlp.down_proj": 2},
        "alpha_pattern": {"k_proj": 3},
    },
    "gemma3": {"r": 2, "lora_alpha": 4, "target_modules": ["q_proj", "v_proj", "gate_proj"]},
    "qwen2": {"r": 4, "lora_alpha": 2, "target_modules": LINEAR, "use_rslora": True},
    # Conv1D keeps its weight (inputs, outputs).
    "gpt2": {
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["c_attn", "c_proj", "c_fc"],
        "fan_in_fan_out": True,
    },
    # Magnitudes apart, of permuted rows and of transposed weights.
    "llama-dora": {"r": 2, "lora_alpha": 3, "target_modules": LINEAR, "use_dora": True},
    "gpt2-dora": {
        "r": 2,
        "lora_alpha": 3,
        "target_modules": ["c_attn", "mlp.c_proj"],
        "fan_in_fan_out": True,
        "use_dora": True,
    },
}


def randomize(model: torch.nn.Module, generator: torch.Generator) -> None:
    """Both matrices random (PEFT begins with B = 0), the adapter's part about a third of the
    weight's."""
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            continue
        noise = torch.randn(parameter.shape, generator=generator)
        if "magnitude" in name:
            with torch.no_grad():
                parameter.mul_(1 + 0.2 * noise)
            continue
        size = parameter.shape[1] ** -0.5 * (0.3 if "lora_B" in name else 1.0)
        with torch.no_grad():
            parameter.copy_(noise * size)


def make_tiny(name: str, options: dict[str, Any]) -> None:
    of = name.removesuffix("-dora")
    base = AutoModelForCausalLM.from_pretrained(
        MODELS / of, dtype=torch.float32, attn_implementation="eager"
    ).eval()
    model = get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **options)).eval()
    randomize(model, torch.Generator().manual_seed(sum(map(ord, name)) + 1))
    folder = HERE / name
    folder.mkdir(exist_ok=True)
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    config = json.loads((folder / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = of  # not the path on this machine
    config["target_modules"] = sorted(config["target_modules"])
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    tokens = json.loads((MODELS / of / "tokens.json").read_text())["tokens"]
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].float().numpy()
    (folder / "logits.bin").write_bytes(logits.astype("<f4").tobytes())
    plain = np.frombuffer((MODELS / of / "logits.bin").read_bytes(), dtype="<f4")
    size = sum(file.stat().st_size for file in folder.iterdir())
    change = float(np.abs(logits.reshape(-1) - plain).max())
    print(f"{name}: {size} bytes, logits std {logits.std():.3f}, changed by up to {change:.3f}")


def rule(rows: int, columns: int, salt: int, size: float) -> np.ndarray:
    """Numbers in [-size, size) that any language can make: a 32-bit mixing of the index."""
    index = np.arange(rows * columns, dtype=np.uint64) + np.uint64(salt) * np.uint64(2654435761)
    state = index.astype(np.uint32)
    state ^= state >> np.uint32(16)
    state *= np.uint32(0x7FEB352D)
    state ^= state >> np.uint32(15)
    state *= np.uint32(0x846CA68B)
    state ^= state >> np.uint32(16)
    unit = (state >> np.uint32(8)).astype(np.float32) * np.float32(2.0**-23) - np.float32(1)
    return (unit * np.float32(size)).reshape(rows, columns)


RANK = 8
ALPHA = 16.0
SIZE = 0.1
PROMPT = "The capital of France is"
ANSWER_TOKENS = 12


def write_rule_adapter(model: Path, path: Path) -> None:
    """q, v and down of every layer."""
    import gguf

    reader = gguf.GGUFReader(model)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_type("adapter")
    writer.add_string("adapter.type", "lora")
    writer.add_float32("adapter.lora.alpha", ALPHA)
    parts = ("attn_q.w", "attn_v.w", "ffn_down.w")
    chosen = [tensor for tensor in reader.tensors if any(part in tensor.name for part in parts)]
    for number, tensor in enumerate(sorted(chosen, key=lambda tensor: tensor.name)):
        inputs, outputs = (int(extent) for extent in tensor.shape)
        a, b = rule(RANK, inputs, 2 * number, SIZE), rule(outputs, RANK, 2 * number + 1, SIZE)
        writer.add_tensor(tensor.name + ".lora_a", a)
        writer.add_tensor(tensor.name + ".lora_b", b)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def make_real(folder: Path) -> None:
    from llama_cpp import Llama

    file = folder / "smollm2-135m-instruct-q4_1.gguf"
    with tempfile.TemporaryDirectory() as scratch:
        adapter = Path(scratch) / "adapter.gguf"
        write_rule_adapter(file, adapter)
        record: dict[str, Any] = {"file": file.name, "prompt": PROMPT}
        for name, lora in (("plain", None), ("adapted", str(adapter))):
            model = Llama(
                str(file), lora_path=lora, n_ctx=128, logits_all=True, verbose=False, n_threads=2
            )
            tokens = model.tokenize(PROMPT.encode(), add_bos=False)
            model.eval(tokens)
            logits = np.array(model.scores[len(tokens) - 1], dtype=np.float32)
            answer, lead = [], []
            row = logits
            for _ in range(ANSWER_TOKENS):
                top = np.sort(row)
                lead.append(round(float(top[-1] - top[-2]), 4))
                answer.append(int(row.argmax()))
                model.eval([answer[-1]])
                row = np.array(model.scores[model.n_tokens - 1])
            record["tokens"] = tokens
            record[name] = {
                "answer": answer,
                "lead": lead,
                "text": model.detokenize(answer).decode(errors="replace"),
                "logits": [round(float(value), 4) for value in logits[::96]],
            }
    (HERE / "smollm2.json").write_text(json.dumps(record) + "\n")
    print(record["plain"]["text"], "|", record["adapted"]["text"])


def cache_folder() -> Path:
    root = os.environ.get("HONE_CACHE")
    return (Path(root) if root else Path.home() / ".cache" / "hone") / "models"


def main() -> None:
    what = sys.argv[1] if len(sys.argv) > 1 else "tiny"
    if what == "tiny":
        for name, options in ADAPTERS.items():
            make_tiny(name, options)
    elif what == "real":
        make_real(Path(sys.argv[2]) if len(sys.argv) > 2 else cache_folder())
    else:
        raise SystemExit(__doc__)


if __name__ == "__main__":
    main()
