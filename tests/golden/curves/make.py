"""Golden loss curves: 20 steps on the small llama of tests/golden/models by PyTorch and PEFT.

    python make.py     # writes curves.json beside this file

Every step sees all EXAMPLES sequences, drawn by the formula of `example`; the loss is the mean over
all their next-token targets in float32, before the step's update. Weights are those of the folder;
LoRA and DoRA (PEFT, rank 4, alpha 8, all linear layers) begins with A by `first_a` and B zero.
AdamW is torch's; Lion is its paper's update (Chen et al. 2023, algorithm 2), which torch lacks.
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

HERE = Path(__file__).resolve().parent
MODEL = HERE.parent / "models" / "llama"
EXAMPLES, LENGTH, VOCABULARY, STEPS = 6, 20, 160, 20


def example(index: int) -> list[int]:
    """Tokens of one sequence, the same in the test."""
    return [(index * 37 + i * i * 11 + i * 5) % VOCABULARY for i in range(LENGTH)]


def first_a(rank: int, columns: int) -> torch.Tensor:
    """A's first values: multiples of 1/1000 in +-1/sqrt(columns)."""
    rows = torch.arange(rank).reshape(-1, 1)
    cells = (rows * 7919 + torch.arange(columns) * 104729) % 1000
    return (cells.to(torch.float64) / 500 - 1).div(columns**0.5).to(torch.float32)


class Lion(torch.optim.Optimizer):
    """x -= rate * sign(b1 m + (1 - b1) g); m = b2 m + (1 - b2) g."""

    def __init__(
        self, parameters: Iterable[torch.nn.Parameter], rate: float, betas: tuple[float, float]
    ) -> None:
        super().__init__(parameters, {"rate": rate, "betas": betas})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One step of every parameter."""
        for group in self.param_groups:
            first, second = group["betas"]
            for parameter in group["params"]:
                state = self.state[parameter]
                mean = state.setdefault("mean", torch.zeros_like(parameter))
                direction = (mean * first + parameter.grad * (1 - first)).sign()
                parameter.sub_(direction * group["rate"])
                mean.mul_(second).add_(parameter.grad, alpha=1 - second)


def load() -> torch.nn.Module:
    """The folder's model in float32."""
    model = AutoModelForCausalLM.from_pretrained(
        MODEL, dtype=torch.float32, attn_implementation="eager"
    )
    model.eval()
    return model


def curve(model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> list[float]:
    """Losses of STEPS steps."""
    tokens = torch.tensor([example(i) for i in range(EXAMPLES)])
    losses = []
    for _ in range(STEPS):
        logits = model(tokens).logits[:, :-1].reshape(-1, VOCABULARY)
        loss = torch.nn.functional.cross_entropy(logits, tokens[:, 1:].reshape(-1))
        losses.append(float(loss.detach()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return losses


def main() -> None:
    """Runs the curves."""
    curves = {}
    model = load()
    curves["adamw"] = curve(model, torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.0))
    model = load()
    curves["lion"] = curve(model, Lion(model.parameters(), 5e-4, (0.9, 0.99)))
    names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    for form in ("lora", "dora"):
        config = LoraConfig(r=4, lora_alpha=8, target_modules=names, use_dora=form == "dora")
        adapted = get_peft_model(load(), config)
        adapted.eval()
        for name, parameter in adapted.named_parameters():
            if "lora_A" in name:
                parameter.data.copy_(first_a(*parameter.shape))
        trained = [p for p in adapted.parameters() if p.requires_grad]
        curves[form] = curve(adapted, torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.0))
    (HERE / "curves.json").write_text(json.dumps(curves, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
