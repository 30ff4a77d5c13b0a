"""Tuning by forward passes alone as a user types it: results, replay, rewards, rankings, ranks.

python3 test_forward.py --build BUILD_FOLDER [unittest's arguments]
"""

# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import os
import shutil
import subprocess
import sys
import unittest
from pathlib import Path
from typing import Any

import test_tuning
from test_tuning import CORRUPT, INVALID

OUT_OF_RANGE, IO = 6, 8
LENGTH = """
import json, sys
for line in sys.stdin:
    print(len(json.loads(line)["answer"]) % 7)
"""


class ForwardTest(test_tuning.Case):
    """One tiny pretrained model, tuned without a backward pass."""

    def forward(self, output: str, *words: object) -> dict[str, Any]:
        return self.tune(output, "--method", "zo", "--layers", "all", *words)

    def questions(self) -> Path:
        path = self.folder / "questions.jsonl"
        lines = [{"question": f"number {i}?", "answer": f"{i % 10}"} for i in range(8)]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        return path

    def judged(self, *words: object) -> tuple[object, ...]:
        return (
            *("tune", self.model, "--data", self.questions(), "--method", "zo", "--layers", "all"),
            *("-o", "judged.gguf", "--runs", "runs.sqlite", "--steps", 2, "--batch", 2),
            *("--rank", 2, "--directions", 2, "--epsilon", 0.1, "--answer-tokens", 4, *words),
        )

    def test_the_loss_falls_and_the_adapter_serves(self) -> None:
        for rate, *words in (
            (0.02,),
            (0.02, "--probe", "pair"),
            (0.02, "--shaping", "spread"),
        ):
            with self.subTest(words=words):
                report = self.forward("a.gguf", "--steps", 60, "--learning-rate", rate, *words)
                first, last = report["loss"][:8], report["loss"][-8:]
                self.assertLess(sum(last), sum(first))
                adapter = ("--adapter", "a.gguf")
                self.result("run", self.model, *adapter, "--raw", "-p", "number 3:", "-n", 4)

    def test_a_checkpoint_is_small_and_replays_to_the_same_bits(self) -> None:
        report = self.forward("a.gguf", "--steps", 20, "--checkpoint-every", 10)
        files = sorted((self.folder / "a.gguf.checkpoints").glob("*.hone"))
        self.assertLess(max(file.stat().st_size for file in files), 8000)
        again = self.result("runs", "replay", "last", "--runs", "runs.sqlite", "-o", "again.gguf")
        self.assertEqual(again["hash"], report["hash"])
        ours, theirs = self.folder / "a.gguf", self.folder / "again.gguf"
        self.assertEqual(ours.read_bytes(), theirs.read_bytes())
        verified = self.result("verify", "last", "--runs", "runs.sqlite")
        self.assertTrue(verified["equal"])

    def test_a_trajectory_replays(self) -> None:
        hashes = set()
        for words in ((), ("--trajectory", 4)):
            prompt = ("--perturb", "prompt", "--virtual-tokens", 2, *words)
            report = self.forward("a.gguf", "--steps", 12, "--directions", 2, *prompt)
            replayed = ("runs", "replay", "last", "--runs", "runs.sqlite", "-o", "again.gguf")
            self.assertEqual(self.result(*replayed)["hash"], report["hash"])
            hashes.add(report["hash"])
        self.assertEqual(len(hashes), 2)
        others = ("tune", self.model, "--data", self.data, "--method", "zo", "--trajectory", 4)
        self.fails(INVALID, "--perturb prompt", *others)

    def replayed(self, words: tuple[object, ...]) -> dict[str, Any]:
        """A run; its list of coefficients, and its first checkpoint, lead to the same bits."""
        shutil.rmtree(self.folder / "a.gguf.checkpoints", ignore_errors=True)
        report = self.forward("a.gguf", "--steps", 12, "--checkpoint-every", 4, *words)
        again = self.result("runs", "replay", "last", "--runs", "runs.sqlite", "-o", "again.gguf")
        self.assertEqual(again["hash"], report["hash"])
        folder = self.folder / "a.gguf.checkpoints"
        for file in sorted(folder.glob("*.hone"))[1:]:
            file.unlink()
        resumed = self.result("tune", self.model, "--resume", folder, "--runs", "runs.sqlite")
        self.assertEqual(resumed["hash"], report["hash"])
        return report

    def test_momentum_lines_and_distances_replay(self) -> None:
        pairs = ("--probe", "pair", "--epsilon", 0.01)
        plain = self.replayed(pairs)
        hashes = {plain["hash"]}
        for words in (
            ("--seed-momentum", 0.8),
            ("--line-search", 4),
            ("--epsilon-target", 0.05),
            ("--seed-momentum", 0.5, "--line-search", 2, "--epsilon-target", 0.05),
            ("--backward-layers", 1),
            ("--backward-layers", 1, "--line-search", 2, "--optimizer", "muon"),
        ):
            with self.subTest(words=words):
                hashes.add(self.replayed((*pairs, *words))["hash"])
        self.assertEqual(len(hashes), 7)
        line = self.forward("a.gguf", "--steps", 30, "--learning-rate", 1e-4, "--line-search", 8)
        short = self.forward("a.gguf", "--steps", 30, "--learning-rate", 1e-4)
        self.assertLess(sum(line["loss"][-8:]), sum(short["loss"][-8:]))
        short_run = ("--steps", 12, "--learning-rate", 0.01)
        seeds = self.forward("a.gguf", *short_run, "--seed-momentum", 0.8)
        state = self.forward("a.gguf", *short_run, "--set", "momentum=0.8")
        for ours, theirs in zip(seeds["loss"], state["loss"], strict=True):
            self.assertAlmostEqual(ours, theirs, delta=2e-3 * theirs)
        self.result(*self.judged("--rank-by", "echo 1 0", "--line-search", 2))
        self.result(*self.judged("--reward", "f1", "--line-search", 2, "--epsilon-target", 0.1))
        others = ("tune", self.model, "--data", self.data, "--method", "zo")
        self.fails(INVALID, "--probe pair", *others, "--epsilon-target", 0.1)
        self.fails(INVALID, "leave none", *others, "--backward-layers", 64)
        self.fails(INVALID, "--reward", *self.judged("--reward", "f1", "--backward-layers", 1))

    def test_rewards_and_rankings(self) -> None:
        (self.folder / "score.py").write_text(LENGTH, "utf-8")
        program = f"{sys.executable} score.py"
        for words in (("--reward", program), ("--reward", "f1"), ("--reward", "accuracy")):
            report = self.result(*self.judged(*words))
            self.assertEqual(len(report["reward"]), 2)
        report = self.result(*self.judged("--reward", "f1", "--probe", "one-sided"))
        self.assertEqual(len(report["reward"]), 2)
        report = self.result(*self.judged("--rank-by", "echo 1 0"))
        self.assertNotEqual(
            report["hash"], self.result(*self.judged("--rank-by", "echo 0"))["hash"]
        )

    def test_programs_that_fail_are_told(self) -> None:
        self.fails(IO, "exit status 3", *self.judged("--reward", "exit 3"))
        self.fails(IO, "1 seconds", *self.judged("--reward", "sleep 9", "--program-seconds", 1))
        self.fails(CORRUPT, "no reward", *self.judged("--reward", "true"))
        self.fails(CORRUPT, "finite", *self.judged("--reward", "echo nan"))
        self.fails(CORRUPT, "twice", *self.judged("--rank-by", "echo 0 0"))
        words = ("tune", self.model, "--data", self.data, "--reward", "true")
        self.fails(INVALID, "--method zo", *words)

    def test_a_rate_that_leaves_the_finite_is_told(self) -> None:
        words: tuple[object, ...] = (
            *("tune", self.model, "--data", self.data, "--method", "zo", "--layers", "all"),
            *("-o", "a.gguf", "--runs", "runs.sqlite", "--steps", 60, "--learning-rate", 1e30),
        )
        self.fails(OUT_OF_RANGE, "finite", *words)
        report = self.forward("a.gguf", "--steps", 30, "--learning-rate", 3000)
        self.assertLess(report["loss"][-1], 2 * report["loss"][0])

    @unittest.skipUnless(shutil.which("mpirun"), "mpirun is not installed")
    def test_ranks_end_with_the_same_bits(self) -> None:
        environment = {
            **os.environ,
            "OMPI_ALLOW_RUN_AS_ROOT": "1",
            "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        }
        hashes = set()
        # Three directions: shared by two ranks; four ranks share the examples.
        for ranks in (1, 2, 4):
            done = subprocess.run(
                [
                    *("mpirun", "--oversubscribe", "-n", str(ranks), test_tuning.BUILD / "hone"),
                    *("tune", self.model, "--data", self.data, "--method", "zo", "--layers", "all"),
                    *("--steps", "6", "--directions", "3", "--rank", "2", "-j", "1", "--json"),
                    *("--line-search", "2", "--seed-momentum", "0.5"),
                    *("-o", f"{ranks}.gguf", "--runs", f"{ranks}.sqlite"),
                ],
                cwd=self.folder,
                text=True,
                capture_output=True,
                check=False,
                timeout=300,
                env=environment,
            )
            if "libhone_mpi" in done.stderr:
                self.skipTest("hone was built without MPI")
            self.assertEqual(done.returncode, 0, done.stderr)
            hashes.add(json.loads(done.stdout)["hash"])
        self.assertEqual(len(hashes), 1)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--build", type=Path, default=test_tuning.BUILD)
    options, rest = parser.parse_known_args()
    test_tuning.BUILD = options.build.resolve()
    unittest.main(argv=[sys.argv[0], *rest])
