"""Golden soft prompts by PEFT: folders of prompt tuning, logits with them, and a loss curve.

    python make.py

For small models of ../models (NAME): a folder NAME as PEFT writes it (adapter_config.json and
adapter_model.safetensors, random values about as large as embedded tokens), and logits.bin, (T, V)
little-endian f32: of ../models/NAME/tokens.json behind the virtual tokens.
curve.json: 20 steps of torch's AdamW on the llama of ../models, as ../curves/make.py has them (the
same examples; the loss is the mean over the targets that these have, their first tokens are none),
of a prompt that begins as the embedding of FIRST, with "tokens" and the "losses" before each step.
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "models"
# Name of the model to its number of virtual tokens. Gemma multiplies embedded tokens, GPT-2 adds
# learned positions.
PROMPTS = {"llama": 5, "gemma3": 3, "gpt2": 4}
EXAMPLES, LENGTH, VOCABULARY, STEPS = 6, 20, 160, 20
FIRST = [7, 42, 99, 3, 120, 64]


def load(name: str, virtual_tokens: int) -> PeftModel:
    """The folder's model in float32 behind a soft prompt."""
    base = AutoModelForCausalLM.from_pretrained(
        MODELS / name, dtype=torch.float32, attn_implementation="eager"
    )
    config = PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=virtual_tokens)
    return get_peft_model(base.eval(), config).eval()


def prompt_of(model: PeftModel) -> torch.nn.Parameter:
    """The tensor that is trained."""
    return model.prompt_encoder["default"].embedding.weight


def make_folder(name: str, virtual_tokens: int) -> None:
    """PEFT's files and the logits."""
    model = load(name, virtual_tokens)
    tokens = torch.tensor([json.loads((MODELS / name / "tokens.json").read_text())["tokens"]])
    prompt = prompt_of(model)
    with torch.no_grad():
        size = float(model.get_input_embeddings()(tokens).std())
        generator = torch.Generator().manual_seed(virtual_tokens)
        prompt.copy_(torch.randn(prompt.shape, generator=generator) * size)
    folder = HERE / name
    model.save_pretrained(folder)
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text())
    config["base_model_name_or_path"] = name  # not the path on this machine
    path.write_text(json.dumps(config, indent=2) + "\n")
    with torch.no_grad():
        logits = model(tokens).logits[0, virtual_tokens:].float().numpy()
    (folder / "logits.bin").write_bytes(logits.astype("<f4").tobytes())
    plain = np.frombuffer((MODELS / name / "logits.bin").read_bytes(), dtype="<f4")
    print(f"{name}: changed by up to {np.abs(logits.reshape(-1) - plain).max():.3f}")


def example(index: int) -> list[int]:
    """Tokens of one sequence: that of ../curves/make.py."""
    return [(index * 37 + i * i * 11 + i * 5) % VOCABULARY for i in range(LENGTH)]


def curve() -> list[float]:
    """Losses of STEPS steps."""
    model = load("llama", len(FIRST))
    prompt = prompt_of(model)
    with torch.no_grad():
        prompt.copy_(model.get_input_embeddings()(torch.tensor(FIRST)))
    optimizer = torch.optim.AdamW([prompt], lr=3e-2, weight_decay=0.0)
    tokens = torch.tensor([example(i) for i in range(EXAMPLES)])
    losses = []
    for _ in range(STEPS):
        logits = model(tokens).logits[:, len(FIRST) : -1].reshape(-1, VOCABULARY)
        loss = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].reshape(-1))
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def main() -> None:
    """Writes everything."""
    for name, virtual_tokens in PROMPTS.items():
        make_folder(name, virtual_tokens)
    result = {"tokens": FIRST, "losses": curve()}
    (HERE / "curve.json").write_text(json.dumps(result, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
