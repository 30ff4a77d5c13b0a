"""hone eval, runs and plot as a user types them.

python3 test_runs.py --build BUILD_FOLDER [unittest's arguments]
"""

# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import shutil
import sqlite3
import sys
import unittest
import xml.etree.ElementTree as ET
from pathlib import Path

import test_cli
from test_cli import CORRUPT, INVALID, MODELS, NOT_FOUND, UNSUPPORTED, Case

CHOICES: list[dict[str, object]] = [
    {"prompt": "a cat", "choices": [" sat", " flew away", " x"], "answer": 0},
    {"question": "two and two is", "choices": ["four", "five"], "answer": "B"},
]
QUESTIONS: list[dict[str, object]] = [{"prompt": "say something", "answer": ["this", "that"]}]


class RunsCase(Case):
    """A tiny model with a tokenizer of letters, and a file for the records."""

    def setUp(self) -> None:
        super().setUp()
        self.model = self.folder / "model"
        shutil.copytree(MODELS / "llama", self.model)
        pieces = ["<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz", "Ġ"]
        pieces += [f"x{i}" for i in range(160 - len(pieces))]
        special = [{"id": i, "content": pieces[i], "special": True} for i in range(2)]
        tokenizer = {
            "added_tokens": special,
            "normalizer": None,
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True},
            "decoder": {"type": "ByteLevel"},
            "post_processor": None,
            "model": {
                "type": "BPE",
                "vocab": {piece: i for i, piece in enumerate(pieces)},
                "merges": [],
            },
        }
        (self.model / "tokenizer.json").write_text(json.dumps(tokenizer), "utf-8")
        self.data = self.write("data.jsonl", [*CHOICES, *QUESTIONS])
        self.store = self.folder / "records" / "runs.sqlite"

    def write(self, name: str, lines: list[dict[str, object]]) -> Path:
        """A file of JSON lines."""
        path = self.folder / name
        path.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
        return path

    def evaluate(self, *more: object) -> tuple[object, ...]:
        """The words of an evaluation that is recorded."""
        return ("eval", self.model, "--raw", "--data", self.data, "--runs", self.store, *more)


class EvalTest(RunsCase):
    """hone eval."""

    def test_both_kinds(self) -> None:
        report = self.result(*self.evaluate("--output", "out.jsonl", "--max-tokens", 5))
        self.assertEqual(report["examples"], 3)
        self.assertTrue(report["complete"])
        choices = report["multiple_choice"]
        self.assertEqual(choices["examples"], 2)
        self.assertAlmostEqual(choices["chance"], (1 / 3 + 1 / 2) / 2)
        self.assertEqual(sum(choices["predicted"]), 2)
        for by in ("sum", "per_token", "per_character"):
            share = choices[by]
            self.assertLessEqual(share["low"], share["accuracy"])
            self.assertGreaterEqual(share["high"], share["accuracy"])
        self.assertEqual(report["exact_match"]["examples"], 1)
        written = (self.folder / "out.jsonl").read_text("utf-8")
        lines = [json.loads(line) for line in written.splitlines()]
        self.assertEqual([line["line"] for line in lines], [1, 2, 3])
        self.assertEqual(lines[1]["answer"], 1)
        best = max(lines[0]["choices"], key=lambda choice: choice["log_probability"])
        self.assertEqual(lines[0]["choices"][lines[0]["predicted"]], best)
        right = sum(line["right"] for line in lines[:2])
        self.assertEqual(choices["sum"]["right"], right)
        self.assertIsInstance(lines[2]["said"], str)
        again = self.result(*self.evaluate("--max-tokens", 5))
        self.assertEqual(again["multiple_choice"], choices)
        text = self.hone(*self.evaluate()).stdout
        self.assertIn("95 % interval", text)

    def test_limit_and_standard_input(self) -> None:
        words = ("eval", self.model, "--raw", "--no-record", "--limit", 1, "--data", "-")
        report = self.result(*words, text=self.data.read_text("utf-8"))
        self.assertEqual(report["examples"], 1)
        self.assertNotIn("run", report)
        self.assertFalse(self.store.exists())

    def test_bad_input(self) -> None:
        self.fails(INVALID, "eval", self.model, "--raw", naming="--data")
        self.fails(NOT_FOUND, "eval", self.model, "--data", "none.jsonl", naming="none.jsonl")
        self.fails(
            NOT_FOUND, *self.evaluate()[:2], "--data", self.data, "--no-record", naming="--raw"
        )
        self.data.write_text('{"prompt": "a", "answer": "b"}\n{"prompt": "a"}\n', "utf-8")
        self.fails(INVALID, *self.evaluate(), naming="line 2")
        self.data.write_text("", "utf-8")
        self.fails(INVALID, *self.evaluate(), naming="no examples")
        self.assertFalse(self.store.exists(), "what cannot begin is no run")
        self.write("data.jsonl", [{"prompt": "a " * 200, "answer": "b"}])
        error = self.fails(test_cli.OUT_OF_RANGE, *self.evaluate(), naming="line 1")
        self.assertIn("context", error)
        runs = self.result("runs", "--runs", self.store)["runs"]
        self.assertEqual([run["status"] for run in runs], ["failed"] * 2)
        self.fails(INVALID, *self.evaluate("--extract", "("), naming="--extract")

    def test_records_that_cannot_be_kept(self) -> None:
        """The result counts more than its record."""
        self.store.parent.mkdir()
        self.store.write_text("no database" * 500, "utf-8")
        done = self.hone(*self.evaluate())
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("not recorded", done.stderr)
        self.fails(CORRUPT, "runs", "--runs", self.store, naming="runs.sqlite")


class RunsTest(RunsCase):
    """hone runs and hone plot."""

    def test_before_the_first_run(self) -> None:
        for words in (("runs",), ("runs", "show"), ("plot",)):
            self.fails(NOT_FOUND, *words, "--runs", self.store, naming="no run records")
        self.assertFalse(self.store.exists())

    def test_list_show_diff(self) -> None:
        first = self.result(*self.evaluate())["run"]
        second = self.result(*self.evaluate("--limit", 1))["run"]
        words = ("--runs", self.store)
        runs = self.result("runs", *words)["runs"]
        self.assertEqual([run["id"] for run in runs], [second, first])
        text = self.hone("runs", *words).stdout
        self.assertIn(first, text)
        self.assertIn("eval raw", text)
        self.assertIn("finished", text)
        self.assertEqual(len(self.result("runs", "list", "-n", 1, *words)["runs"]), 1)
        self.assertEqual(self.result("runs", "--verb", "tune", *words)["runs"], [])

        shown = self.result("runs", "show", first[-4:], *words)
        self.assertEqual(shown["id"], first)
        self.assertEqual(shown["arguments"]["limit"], 0)
        self.assertEqual(shown["arguments"]["raw"], True)
        self.assertEqual(len(shown["data_hash"]), 64)
        self.assertEqual(len(shown["model_hash"]), 64)
        self.assertIn("hone", shown["versions"])
        self.assertEqual(shown["metrics"]["examples"]["last"], 3)
        self.assertIn("--limit", self.hone("runs", "show", *words).stdout)

        compared = self.result("runs", "diff", first, "last", *words)
        self.assertEqual(compared["different"]["--limit"], ["0", "1"])
        self.assertNotIn("data", compared["different"])
        self.assertEqual(compared["last"]["examples"], [3, 1])
        self.assertIn("the same:", self.hone("runs", "diff", first, "last", *words).stdout)

    def test_errors(self) -> None:
        run = self.result(*self.evaluate())["run"]
        words = ("--runs", self.store)
        self.fails(INVALID, "runs", "sho", *words, naming="'show'")
        self.fails(NOT_FOUND, "runs", "show", "zzzz", *words, naming="no such run")
        self.fails(INVALID, "runs", "diff", run, *words, naming="two runs")
        self.fails(INVALID, "runs", "list", run, *words, naming="one argument too many")
        self.fails(NOT_FOUND, "plot", run, "--metric", "los", *words, naming="accuracy")
        with sqlite3.connect(self.store) as database:
            database.execute("PRAGMA user_version = 99")
        database.close()
        self.fails(UNSUPPORTED, "runs", *words, naming="newer")

    def test_plot(self) -> None:
        run = self.result(*self.evaluate())["run"]
        # A curve of two hundred steps, with a gap, in the words of the documented tables.
        with sqlite3.connect(self.store) as database:
            for step in range(200):
                value = None if step == 50 else 3 - step / 100
                database.execute(
                    "INSERT INTO metrics SELECT number, 'loss', ?, ? FROM runs", (step, value)
                )
        database.close()
        words = ("--runs", self.store)
        chart = self.hone("plot", *words, "--width", 60, "--height", 10)
        self.assertEqual(chart.returncode, 0, chart.stderr)
        self.assertIn(f"{run} eval raw", chart.stdout)
        self.assertLessEqual(max(map(len, chart.stdout.splitlines())), 60)
        self.assertRegex(chart.stdout, "[\u2801-\u28ff]{3}")
        self.assertNotIn("\x1b", chart.stdout)
        points = self.result("plot", run, *words)["runs"][0]
        self.assertEqual(len(points["steps"]), 200)
        self.assertIsNone(points["values"][50])
        self.assertEqual(points["values"][100], 2)
        smooth = self.result("plot", run, "--smooth", 5, *words)["runs"][0]
        self.assertAlmostEqual(smooth["values"][100], 2)

        done = self.hone("plot", "last", run, "--svg", "loss.svg", *words)
        self.assertEqual(done.returncode, 0, done.stderr)
        picture = ET.parse(self.folder / "loss.svg").getroot()
        self.assertTrue(picture.tag.endswith("svg"))
        self.assertEqual(self.hone("plot", "--svg", "-", *words).stdout[:4], "<svg")
        self.fails(NOT_FOUND, "plot", "--svg", "none/loss.svg", *words, naming="none/loss.svg")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--build", type=Path, default=test_cli.BUILD)
    options, rest = parser.parse_known_args()
    test_cli.BUILD = options.build.resolve()
    unittest.main(argv=[sys.argv[0], *rest])
