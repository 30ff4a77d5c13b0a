"""hone and PyTorch in turn on this machine: seconds and memory of a training step.

    python tune.py [--rounds 3] [--hone build/release/hone] [--model MODEL] [--json FILE]
                   [--methods lora,full] [--batch 4] [--length 256]
                   [--dtypes float32,compiled,bfloat16,half]

The peer is a Llama of SmolLM2-135M's shape with random weights: transformers and, for LoRA, PEFT
(rank 16 on all linear layers), fused AdamW; float32, eager and by torch.compile (`compiled`), and
bfloat16 by autocast, or with weights and state in it, too (`half`), which without bf16 instructions
take minutes. `zo` is a plain MeZO step (Malladi et al. 2023): noise added to all weights, taken off
twice, put back, two forward passes between, and an update; in float32, or with weights in bfloat16.
The last lines are ratios of seconds and of memory, every peer to every form of hone's. Each
measurement is a process of its own, so that its peak memory is the operating system's; rounds
alternate. `--worker` is what these processes run.
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

Sample = dict[str, float]
# What hone measures of each method: names and options, the plain form first.
VARIANTS: dict[str, dict[str, list[str]]] = {
    "lora": {"": [], ", int8": ["--rounding", "int8"]},
    "full": {
        "": [],
        ", inside": ["--update-inside", "--memory", "350MB"],
        ", adamw8": ["--optimizer", "adamw8", "--update-inside"],
    },
    "zo": {
        "": ["--directions", "1", "--layers", "all"],
        ", scales": ["--directions", "1", "--layers", "all", "--perturb", "scale"],
        ", full noise": ["--directions", "1", "--layers", "all", "--perturb", "full"],
    },
}
Module = Any  # of torch, which is not there where types are checked
Tensor = Any


def mezo_step(model: Module, tokens: Tensor, seed: int) -> None:
    """One step of MeZO on all weights, in place, as its authors' program does it."""
    import torch

    epsilon, rate = 1e-3, 1e-6

    def move(factor: float) -> None:
        generator = torch.Generator().manual_seed(seed)
        for weight in model.parameters():
            noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
            weight.add_(noise, alpha=factor)

    move(epsilon)
    ahead = model(input_ids=tokens, labels=tokens).loss
    move(-2 * epsilon)
    behind = model(input_ids=tokens, labels=tokens).loss
    move(epsilon)
    move(-rate * float(ahead - behind) / (2 * epsilon))


def mezo_seconds(model: Module, tokens: Tensor, steps: int) -> list[float]:
    """Seconds of each step after the first."""
    import torch

    model.eval()
    seconds = []
    with torch.no_grad():
        for step in range(steps + 1):
            start = time.perf_counter()
            mezo_step(model, tokens, step)
            if step > 0:
                seconds.append(time.perf_counter() - start)
    return seconds


def worker(method: str, dtype: str, batch: int, length: int, steps: int) -> Sample:
    """One peer process: builds the model, makes steps, returns median seconds and peak bytes."""
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(2)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        num_hidden_layers=30,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(config)
    tokens = torch.randint(0, 49152, (batch, length))
    if method == "zo":
        if dtype == "bfloat16":
            model = model.to(torch.bfloat16)
        seconds = mezo_seconds(model, tokens, steps)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"step_seconds": statistics.median(seconds), "peak_bytes": float(peak)}
    if method == "lora":
        from peft import LoraConfig, get_peft_model

        names = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
        model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=names))
    if dtype == "half":
        model = model.to(torch.bfloat16)
    model.train()
    compute: Any = torch.compile(model) if dtype == "compiled" else model
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    seconds = []
    for step in range(steps + 1):
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=dtype == "bfloat16"):
            loss = compute(input_ids=tokens, labels=tokens).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        if step > 0:
            seconds.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return {"step_seconds": statistics.median(seconds), "peak_bytes": float(peak)}


def run_json(command: list[str]) -> Sample:
    """The JSON document that a command prints."""
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout)


def peer(method: str, dtype: str, arguments: argparse.Namespace) -> Sample:
    """A measurement of PyTorch."""
    words = [sys.executable, __file__, "--worker", method, dtype]
    words += ["--batch", str(arguments.batch), "--length", str(arguments.length)]
    words += ["--steps", str(arguments.steps)]
    return run_json(words)


def hone(method: str, extra: list[str], arguments: argparse.Namespace) -> Sample:
    """A measurement of hone."""
    words = [arguments.hone, "bench", "tune", arguments.model, "--method", method, "--json"]
    words += ["--batch", str(arguments.batch), "--length", str(arguments.length)]
    words += ["--steps", str(arguments.steps), "--threads", "2", *extra]
    return run_json(words)


def main() -> None:
    """Measures in turn and prints medians and ratios."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--hone", default="build/release/hone")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--methods", default="lora,full")
    parser.add_argument("--dtypes", default="float32,bfloat16")
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--worker", nargs=2, metavar=("METHOD", "DTYPE"))
    arguments = parser.parse_args()
    if arguments.worker:
        method, dtype = arguments.worker
        sample = worker(method, dtype, arguments.batch, arguments.length, arguments.steps)
        print(json.dumps(sample))
        return
    samples: dict[str, list[Sample]] = {}
    for _ in range(arguments.rounds):
        for method in arguments.methods.split(","):
            for variant, extra in VARIANTS[method].items():
                name = f"hone {method}{variant}"
                samples.setdefault(name, []).append(hone(method, extra, arguments))
            if method == "zo":
                samples.setdefault("hone forward", []).append(hone("forward", [], arguments))
            for dtype in arguments.dtypes.split(","):
                name = f"torch {method} {dtype}"
                samples.setdefault(name, []).append(peer(method, dtype, arguments))
    rows = {
        name: {
            "step_seconds": statistics.median(s["step_seconds"] for s in each),
            "peak_bytes": statistics.median(s["peak_bytes"] for s in each),
        }
        for name, each in samples.items()
    }
    for name, row in rows.items():
        print(f"{name:24} {row['step_seconds']:8.3f} s   {row['peak_bytes'] / 1e6:8.0f} MB")
    for method in arguments.methods.split(","):
        for variant in VARIANTS[method]:
            ours = rows[f"hone {method}{variant}"]
            for peer_name in [name for name in rows if name.startswith("torch")]:
                theirs = rows[peer_name]
                seconds = theirs["step_seconds"] / ours["step_seconds"]
                memory = theirs["peak_bytes"] / ours["peak_bytes"]
                print(f"{peer_name} / hone {method}{variant}: {seconds:.2f}, memory {memory:.2f}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n", "utf-8")


if __name__ == "__main__":
    main()
