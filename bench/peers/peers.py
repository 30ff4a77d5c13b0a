"""hone and llama.cpp in turn on this machine: prefill, decode, eight sequences at once.

    python peers.py [--rounds 7] [--hone build/release/hone] [--json FILE] [--only NAME]

Each round runs every measurement once for hone and once for llama.cpp, the order turned round from
round to round, so that what else the machine does falls on both. llama.cpp is driven through its C
API, warmed up, once with and once without flash attention; the better of the two medians counts.
The table shows medians, their quartiles and the ratio of the medians.
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import argparse
import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import llama_cpp
from gguf_q4_0 import rewrite

PROMPT = 256
GENERATE = 64
SEQUENCES = 8
SEQUENCE_PROMPT = 32  # of each of the eight
NAMES = ("prefill", "decode", "eight")
Rates = dict[str, float]  # name -> tokens per second


class LlamaCpp:
    """A loaded model with one context, measured through llama_decode."""

    def __init__(self, file: Path, threads: int, flash: bool) -> None:
        self.model = llama_cpp.llama_model_load_from_file(
            str(file).encode(), llama_cpp.llama_model_default_params()
        )
        if not self.model:
            raise SystemExit(f"{file}: llama.cpp cannot load it")
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = SEQUENCES * 128
        params.n_batch = params.n_ubatch = PROMPT
        params.n_seq_max = SEQUENCES
        params.kv_unified = True
        params.n_threads = params.n_threads_batch = threads
        params.flash_attn_type = 1 if flash else 0
        params.no_perf = True
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.batch = llama_cpp.llama_batch_init(PROMPT, 0, 1)
        self.measure()  # warm-up: page faults, repacked weights, threads

    def close(self) -> None:
        llama_cpp.llama_batch_free(self.batch)
        llama_cpp.llama_free(self.context)
        llama_cpp.llama_model_free(self.model)

    def decode(self, rows: list[tuple[int, int, bool]]) -> None:
        """One forward pass over (position, sequence, wants logits); waits for its logits."""
        self.batch.n_tokens = len(rows)
        for i, (position, sequence, logits) in enumerate(rows):
            self.batch.token[i] = 300 + (position * 7919 + sequence * 131) % 20000
            self.batch.pos[i] = position
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = sequence
            self.batch.logits[i] = logits
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            raise SystemExit("llama_decode failed")
        llama_cpp.llama_synchronize(self.context)

    def clear(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)

    def measure(self) -> Rates:
        self.clear()
        start = time.perf_counter()
        self.decode([(i, 0, i == PROMPT - 1) for i in range(PROMPT)])
        prefilled = time.perf_counter()
        for i in range(GENERATE):
            self.decode([(PROMPT + i, 0, True)])
        decoded = time.perf_counter()

        self.clear()
        for s in range(SEQUENCES):
            self.decode([(i, s, i == SEQUENCE_PROMPT - 1) for i in range(SEQUENCE_PROMPT)])
        eight_start = time.perf_counter()
        for i in range(GENERATE):
            self.decode([(SEQUENCE_PROMPT + i, s, True) for s in range(SEQUENCES)])
        eight_end = time.perf_counter()
        return {
            "prefill": PROMPT / (prefilled - start),
            "decode": GENERATE / (decoded - prefilled),
            "eight": SEQUENCES * GENERATE / (eight_end - eight_start),
        }


@dataclass
class Hone:
    """The program under test; each measurement is a process of its own."""

    program: Path
    file: Path
    threads: int

    def run(self, prompt: int, sequences: int) -> dict[str, Any]:
        command = [str(self.program), "bench", "run", str(self.file), "--prompt", str(prompt)]
        command += ["--generate", str(GENERATE), "--threads", str(self.threads), "--json"]
        if sequences > 1:
            command += ["--sequences", str(sequences)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(done.stderr.strip() or f"exit status {done.returncode}")
        return json.loads(done.stdout)

    def measure(self) -> Rates:
        one = self.run(PROMPT, 1)
        rates = {
            "prefill": float(one["prefill_tokens_per_second"]),
            "decode": float(one["decode_tokens_per_second"]),
        }
        try:
            eight = self.run(SEQUENCE_PROMPT, SEQUENCES)
            rates["eight"] = float(eight["decode_tokens_per_second"])
        except RuntimeError as error:
            print(f"hone, {SEQUENCES} sequences: {error}", file=sys.stderr)
        return rates


@dataclass
class Samples:
    """All rounds of one contender on one model."""

    rates: dict[str, list[float]] = field(default_factory=lambda: {name: [] for name in NAMES})

    def add(self, rates: Rates) -> None:
        for name, rate in rates.items():
            self.rates[name].append(rate)

    def median(self, name: str) -> float | None:
        return statistics.median(self.rates[name]) if self.rates[name] else None

    def text(self, name: str) -> str:
        values = sorted(self.rates[name])
        if not values:
            return "-"
        low, high = values[len(values) // 4], values[(3 * len(values)) // 4]
        return f"{statistics.median(values):.0f} ({low:.0f} to {high:.0f})"


def measure_model(file: Path, hone: Path | None, rounds: int, threads: int) -> dict[str, Any]:
    peers = {
        "llama.cpp": LlamaCpp(file, threads, flash=False),
        "llama.cpp, flash attention": LlamaCpp(file, threads, flash=True),
    }
    contenders: dict[str, Any] = dict(peers)
    if hone is not None:
        contenders["hone"] = Hone(hone, file, threads)
    samples = {name: Samples() for name in contenders}
    for i in range(rounds):
        order = list(contenders)
        for name in order if i % 2 == 0 else reversed(order):
            try:
                rates = contenders[name].measure()
                samples[name].add(rates)
                shown = ", ".join(f"{key} {rate:.0f}" for key, rate in rates.items())
                print(f"{file.name}, round {i + 1}, {name}: {shown}", file=sys.stderr)
            except (RuntimeError, KeyError, ValueError) as error:
                print(f"{name}, {file.name}: {error}", file=sys.stderr)
    for peer in peers.values():
        peer.close()
    results: dict[str, Any] = {}
    for name in NAMES:
        best = max(peers, key=lambda peer: samples[peer].median(name) or 0)
        ours = samples["hone"].median(name) if "hone" in samples else None
        theirs = samples[best].median(name)
        results[name] = {
            "peer": best,
            "peer_tokens_per_second": theirs,
            "hone_tokens_per_second": ours,
            "ratio": ours / theirs if ours and theirs else None,
            "rounds": {who: samples[who].rates[name] for who in samples},
            "text": (samples[best].text(name), samples["hone"].text(name) if ours else "-"),
        }
    return results


def machine(threads: int) -> dict[str, Any]:
    cpu = platform.processor()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text().splitlines()
        cpu = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": threads,
        "load": os.getloadavg()[0],
        "llama_cpp_python": llama_cpp.__version__,
        "llama_cpp": llama_cpp.llama_print_system_info().decode().strip(" |"),
        "date": time.strftime("%Y-%m-%d"),
    }


def markdown(report: dict[str, Any]) -> str:
    about = report["machine"]
    lines = [
        f"{about['cpu']}, {about['cores']} cores, {about['threads']} threads, {about['date']}; "
        f"llama-cpp-python {about['llama_cpp_python']}; load {about['load']:.1f} at the start; "
        f"tokens/s, median (quartiles) of {report['rounds']} rounds",
        "",
        "| model | what | hone | llama.cpp | ratio |",
        "|---|---|---:|---:|---:|",
    ]
    labels = {
        "prefill": f"prefill of {PROMPT}",
        "decode": f"decode of {GENERATE}",
        "eight": f"decode, {SEQUENCES} sequences, total",
    }
    for model, results in report["models"].items():
        for name in NAMES:
            theirs, ours = results[name]["text"]
            ratio = results[name]["ratio"]
            factor = f"{ratio:.2f}x" if ratio else "-"
            lines.append(f"| {model} | {labels[name]} | {ours} | {theirs} | {factor} |")
    return "\n".join(lines)


def model_files(cache: Path, work: Path) -> dict[str, Path]:
    """The three files; the Q4_0 one is made from the Q4_1 one, once."""
    q4_1 = cache / "smollm2-135m-instruct-q4_1.gguf"
    q4_0 = work / "smollm2-135m-instruct-q4_0.gguf"
    if q4_1.exists() and not q4_0.exists():
        work.mkdir(parents=True, exist_ok=True)
        rewrite(q4_1, q4_0)
    files = {
        "SmolLM2 135M Q4_1": q4_1,
        "SmolLM2 135M Q4_0": q4_0,
        "Gemma 3 270M Q4_K_M": cache / "gemma-3-270m-q4_k_m.gguf",
    }
    missing = [str(file) for file in files.values() if not file.exists()]
    for file in missing:
        print(f"{file}: absent, left out (`hone fetch` brings it)", file=sys.stderr)
    return {name: file for name, file in files.items() if file.exists()}


def main() -> None:
    root = Path(__file__).resolve().parents[2]
    cache = Path(os.environ.get("HONE_CACHE") or Path.home() / ".cache" / "hone") / "models"
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--hone", type=Path, default=root / "build/release/hone")
    parser.add_argument("--models", type=Path, default=cache, help="folder of the GGUF files")
    parser.add_argument("--work", type=Path, default=root / "build/peers", help="for the Q4_0 file")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default="", help="models whose name contains this")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    options = parser.parse_args()

    silent = llama_cpp.llama_log_callback(lambda level, text, data: None)
    llama_cpp.llama_log_set(silent, ctypes.c_void_p(0))
    llama_cpp.llama_backend_init()
    hone: Path | None = options.hone
    if hone is None or not hone.exists():
        print(f"{hone}: absent; llama.cpp is measured alone", file=sys.stderr)
        hone = None
    report: dict[str, Any] = {"machine": machine(options.threads), "rounds": options.rounds}
    report["models"] = {
        name: measure_model(file, hone, options.rounds, options.threads)
        for name, file in model_files(options.models, options.work).items()
        if options.only.lower() in name.lower()
    }
    print(markdown(report))
    if options.json:
        options.json.write_text(json.dumps(report, indent=1) + "\n")


if __name__ == "__main__":
    main()
