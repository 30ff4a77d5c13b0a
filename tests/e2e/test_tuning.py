"""Tuning as a user types it, on a model made from nothing: results, resuming, records, errors.

python3 test_tuning.py --build BUILD_FOLDER [unittest's arguments]
"""

# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "release"
INVALID, NOT_FOUND, CORRUPT, OUT_OF_MEMORY = 2, 3, 4, 7


class Case(unittest.TestCase):
    """A tiny pretrained model that all tests share, and a folder of its own for each."""

    shared: ClassVar[tempfile.TemporaryDirectory[str]]
    model: ClassVar[Path]
    data: ClassVar[Path]

    @classmethod
    def setUpClass(cls) -> None:
        if not (BUILD / "hone").exists():
            raise unittest.SkipTest("build the target hone")
        cls.shared = tempfile.TemporaryDirectory(prefix="hone-tuning-")
        folder = Path(cls.shared.name)
        cls.model = folder / "tiny.gguf"
        cls.run_in(folder, "pretrain", cls.model, "--stories", "40", "--runs", folder / "runs")
        cls.data = folder / "data.jsonl"
        lines = [
            {"prompt": f"number {i}:", "completion": f" {i * 7 % 10}{i % 10}"} for i in range(24)
        ]
        cls.data.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")

    @classmethod
    def tearDownClass(cls) -> None:
        cls.shared.cleanup()

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory(prefix="hone-tuning-case-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)

    @staticmethod
    def start_in(folder: Path, *words: object) -> subprocess.Popen[str]:
        """The program, running."""
        return subprocess.Popen(
            [BUILD / "hone", *map(str, words)],
            cwd=folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**os.environ, "NO_COLOR": "1"},
        )

    @staticmethod
    def run_in(folder: Path, *words: object) -> str:
        """Standard output of a call that works."""
        done = subprocess.run(
            [BUILD / "hone", *map(str, words)],
            cwd=folder,
            text=True,
            capture_output=True,
            check=False,
            timeout=300,
            env={**os.environ, "NO_COLOR": "1"},
        )
        if done.returncode != 0:
            raise AssertionError(done.stdout + done.stderr)
        return done.stdout

    def result(self, *words: object) -> dict[str, Any]:
        """The JSON document of a call that works."""
        document = json.loads(self.run_in(self.folder, *words, "--json"))
        assert isinstance(document, dict)
        return document

    def tune(self, output: str, *words: object) -> dict[str, Any]:
        """The report of a tuning run of 12 steps, with records in this case's folder."""
        return self.result(
            *("tune", self.model, "--data", self.data, "-o", output, "--runs", "runs.sqlite"),
            *("--steps", 12, "--batch", 8, "--rank", 4, "--alpha", 8, *words),
        )

    def fails(self, status: int, naming: str, *words: object) -> None:
        """A call that must fail with an error that names something."""
        done = subprocess.run(
            [BUILD / "hone", *map(str, words)],
            cwd=self.folder,
            text=True,
            capture_output=True,
            check=False,
            timeout=300,
        )
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        self.assertIn("error: ", done.stderr)
        self.assertIn(naming, done.stderr)


class TuningTest(Case):
    """What tuning makes."""

    def test_every_method_learns_and_leaves_a_file(self) -> None:
        for method in ("lora", "pooled", "dora", "full", "head", "prompt"):
            with self.subTest(method=method):
                report = self.tune(f"{method}.gguf", "--method", method)
                self.assertLess(report["loss"][-1], report["loss"][0])
                self.assertTrue((self.folder / f"{method}.gguf").exists())
                words = ["run", self.model, "--adapter", f"{method}.gguf"]
                if method in ("full", "head"):
                    words = ["run", f"{method}.gguf"]
                self.result(*words, "--raw", "-p", "number 3:", "-t", 0, "-n", 4)

    def test_planned_memory_is_what_the_system_measures(self) -> None:
        report = self.tune("a.gguf")
        planned = report["memory"]["estimated"]
        # A small process: a few megabytes of the allocator's own are part of 5 %.
        self.assertLess(abs(report["peak_bytes"] - planned), 0.05 * planned + 6e6)

    def test_same_seed_same_bits(self) -> None:
        one, two = self.tune("a.gguf"), self.tune("b.gguf")
        other = self.tune("c.gguf", "--seed", 2)
        self.assertEqual(one["hash"], two["hash"])
        self.assertNotEqual(one["hash"], other["hash"])

    def test_records(self) -> None:
        first, second = self.tune("a.gguf"), self.tune("b.gguf", "--learning-rate", 0.01)
        listed = self.run_in(self.folder, "runs", "--runs", "runs.sqlite")
        for report in (first, second):
            self.assertIn(report["run"], listed)
        difference = self.run_in(
            self.folder, "runs", "diff", first["run"], second["run"], "--runs", "runs.sqlite"
        )
        self.assertIn("learning_rate", difference)
        self.run_in(self.folder, "plot", first["run"], "--runs", "runs.sqlite", "--svg", "a.svg")
        self.assertIn("<svg", (self.folder / "a.svg").read_text("utf-8"))

    def test_verify_repeats_the_bits(self) -> None:
        report = self.tune("a.gguf", "--checkpoint-every", 5)
        checked = self.result("verify", report["run"], "--runs", "runs.sqlite")
        self.assertTrue(checked["equal"])
        self.assertEqual(checked["hash"], report["hash"])

    def test_resuming_after_a_kill_gives_the_bits_of_not_stopping(self) -> None:
        whole = self.tune("whole.gguf", "--steps", 400, "--checkpoint-every", 10)
        for number in (signal.SIGKILL, signal.SIGINT):
            with self.subTest(signal=number.name):
                output = f"{number.name}.gguf"
                words: list[object] = ["tune", self.model, "--data", self.data, "-o", output]
                words += ["--runs", "runs.sqlite", "--steps", 400, "--batch", 8]
                words += ["--rank", 4, "--alpha", 8, "--checkpoint-every", 10]
                process = self.start_in(self.folder, *words)
                folder = self.folder / f"{output}.checkpoints"
                while process.poll() is None and not list(folder.glob("*.hone")):
                    time.sleep(0.01)
                process.send_signal(number)
                process.communicate(timeout=60)
                self.assertFalse((self.folder / output).exists(), "it was stopped before its end")
                resumed = self.result(
                    "tune", self.model, "--resume", folder.name, "--runs", "runs.sqlite"
                )
                self.assertEqual(resumed["hash"], whole["hash"])

    def test_less_memory_same_learning(self) -> None:
        # Enough activations that the allocator's own megabytes do not decide.
        data = self.folder / "more.jsonl"
        lines = [{"prompt": f"number {i}:", "completion": f" {i * 7 % 10}"} for i in range(160)]
        data.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        words = ("--data", data, "--batch", 160, "--steps", 3)
        plenty = self.tune("a.gguf", *words)
        limit = plenty["memory"]["estimated"] - plenty["memory"]["activations"] // 2
        scarce = self.tune("b.gguf", *words, "--memory", f"{limit}B")
        self.assertLess(scarce["peak_bytes"], plenty["peak_bytes"])
        for a, b in zip(plenty["loss"], scarce["loss"], strict=True):
            self.assertAlmostEqual(a, b, places=3)

    def test_state_in_a_file_same_bits(self) -> None:
        words = ("--method", "full")
        plenty = self.tune("a.gguf", *words)
        file = self.tune("b.gguf", *words, "--offload")
        self.assertEqual(file["hash"], plenty["hash"])
        self.assertEqual(file["memory"]["offloaded"], plenty["memory"]["optimizer"])
        self.assertEqual(file["memory"]["optimizer"], 0)
        self.assertTrue(self.result("verify", file["run"], "--runs", "runs.sqlite")["equal"])

    def test_soft_prompt(self) -> None:
        words = ("--method", "prompt", "--virtual-tokens", 5, "--prompt-text", "number")
        report = self.tune("p.gguf", *words, "--checkpoint-every", 5, "--validation", self.data)
        self.assertEqual(report["trained_tensors"], 1)
        self.assertLess(report["validation_loss_after"], report["validation_loss_before"])
        checked = self.result("verify", report["run"], "--runs", "runs.sqlite")
        self.assertTrue(checked["equal"])
        adapter = ("--adapter", "p.gguf")
        self.result("convert", "p.gguf", "peft", "--base", self.model)
        config = json.loads((self.folder / "peft" / "adapter_config.json").read_text("utf-8"))
        self.assertEqual((config["peft_type"], config["num_virtual_tokens"]), ("PROMPT_TUNING", 5))
        text = self.folder / "text.txt"
        text.write_text("number 3: 13\n" * 40, "utf-8")
        loss = {
            name: self.result("perplexity", self.model, "-f", text, "-c", 64, *more)["perplexity"]
            for name, more in (
                ("plain", ()),
                ("gguf", adapter),
                ("peft", ("--adapter", "peft")),
                ("off", (*adapter, "--adapter-scale", 0)),
            )
        }
        self.assertEqual(loss["gguf"], loss["peft"])
        self.assertEqual(loss["off"], loss["plain"])
        self.assertNotEqual(loss["gguf"], loss["plain"])
        self.fails(INVALID, "as it was trained", "run", self.model, *adapter, "--adapter-scale", 2)
        self.fails(INVALID, "virtual", "tune", self.model, "--data", self.data, *words[:3], 100000)

    def test_merged_pooled_adapter(self) -> None:
        self.run_in(self.folder, "quantize", self.model, "q.gguf", "--type", "q4_1")
        self.result(
            *("tune", "q.gguf", "--data", self.data, "-o", "p.gguf", "--runs", "r", "--steps", 12),
            *("--method", "pooled", "--rank", 4, "--alpha", 8),
        )
        self.run_in(self.folder, "merge", "q.gguf", "--adapter", "p.gguf", "-o", "merged.gguf")
        self.assertTrue((self.folder / "merged.gguf").exists())


class BadInputTest(Case):
    """Errors that come before any work is lost."""

    def test_data(self) -> None:
        self.fails(NOT_FOUND, "none.jsonl", "tune", self.model, "--data", "none.jsonl")
        (self.folder / "bad.jsonl").write_text('{"prompt": "a", "completion": "b"}\n{"pro', "utf-8")
        self.fails(CORRUPT, "line 2", "tune", self.model, "--data", "bad.jsonl")

    def test_options(self) -> None:
        data = ("--data", self.data)
        self.fails(NOT_FOUND, "nothing", "tune", self.model, *data, "--modules", "nothing")
        self.fails(INVALID, "adamw", "tune", self.model, *data, "--optimizer", "adamx")
        self.fails(INVALID, "--data", "tune", self.model)
        self.fails(OUT_OF_MEMORY, "--memory", "tune", self.model, *data, "--memory", "2MB")
        self.fails(INVALID, "--memory", "tune", self.model, *data, "--memory", "much")

    def test_a_checkpoint_cut_short(self) -> None:
        self.tune("a.gguf", "--checkpoint-every", 5)
        folder = self.folder / "a.gguf.checkpoints"
        for path in folder.glob("*.hone"):
            path.write_bytes(path.read_bytes()[:-100])
        self.fails(NOT_FOUND, "checkpoint", "tune", self.model, "--resume", folder.name)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--build", type=Path, default=BUILD)
    options, rest = parser.parse_known_args()
    BUILD = options.build.resolve()
    unittest.main(argv=[sys.argv[0], *rest])
