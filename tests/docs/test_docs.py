"""What the documentation points at exists: files, headings, make targets, verbs of hone.

python3 test_docs.py [--build BUILD_FOLDER] [unittest's arguments]
"""

# SPDX-License-Identifier: Apache-2.0
import argparse
import re
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "release"

LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)(?:\s+\"[^\"]*\")?\)")
FENCE = re.compile(r"^(```|~~~).*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
MAKE = re.compile(r"\bmake ([a-z]+)\b")
VERB = re.compile(r"^\s*(?:\$ )?(?:build/release/)?hone ([a-z]+)\b", re.MULTILINE)


def documents(root: Path) -> list[Path]:
    """The Markdown files that readers see."""
    return sorted([*root.glob("*.md"), *root.glob("docs/**/*.md"), *root.glob("tiny/*.md")])


def anchor(heading: str) -> str:
    """The fragment that Markdown viewers give to a heading."""
    text = re.sub(r"[`*]|\[([^\]]*)\]\([^)]*\)", r"\1", heading.strip().lower())
    return re.sub(r"[^\w\- ]", "", text).replace(" ", "-")


def anchors(text: str) -> set[str]:
    """All fragments of a document; a repeated heading gets a number."""
    found: set[str] = set()
    for heading in re.findall(r"^#{1,6}\s+(.*)$", FENCE.sub("", text), re.MULTILINE):
        name = anchor(heading)
        number = 0
        while (name if number == 0 else f"{name}-{number}") in found:
            number += 1
        found.add(name if number == 0 else f"{name}-{number}")
    return found


def broken_links(root: Path) -> list[str]:
    """Links to files of the project, or to headings, that are not there."""
    broken = []
    for document in documents(root):
        text = document.read_text("utf-8")
        for target in LINK.findall(FENCE.sub("", text)):
            if re.match(r"[a-z]+:", target):
                continue  # the web
            path, _, fragment = target.partition("#")
            file = document if path == "" else document.parent / path
            where = f"{document.relative_to(root)}: {target}"
            if not file.exists():
                broken.append(where)
            elif (
                fragment
                and file.suffix == ".md"
                and fragment not in anchors(file.read_text("utf-8"))
            ):
                broken.append(f"{where} (no such heading)")
    return broken


def unknown_targets(root: Path) -> list[str]:
    """Targets that a document tells to make and the Makefile does not have."""
    rules = (root / "Makefile").read_text("utf-8")
    targets = set(re.findall(r"^([a-z]+):", rules, re.MULTILINE))
    unknown = []
    for document in documents(root):
        code = "\n".join(
            match.group(0) for match in re.finditer(r"`[^`\n]+`", document.read_text("utf-8"))
        )
        code += "\n".join(m.group(0) for m in FENCE.finditer(document.read_text("utf-8")))
        for target in MAKE.findall(code):
            if target not in targets:
                unknown.append(f"{document.relative_to(root)}: make {target}")
    return unknown


class DocsTest(unittest.TestCase):
    """The documents of this tree, and a broken one to show that each check can fail."""

    def test_links(self) -> None:
        """Every link within the project leads somewhere."""
        self.assertEqual(broken_links(ROOT), [])

    def test_make_targets(self) -> None:
        """Every `make x` is a target."""
        self.assertEqual(unknown_targets(ROOT), [])

    def test_verbs(self) -> None:
        """Every `hone x` in a code block is a verb that the program's help lists."""
        program = BUILD / "hone"
        if not program.exists():
            self.skipTest(f"no {program}: build it first")
        told = subprocess.run([program, "--help"], capture_output=True, text=True, check=False)
        words = set(re.findall(r"[a-z]+", told.stdout))
        if "run" not in words:
            self.skipTest("hone --help lists no verbs yet")
        unknown = []
        for document in documents(ROOT):
            for block in FENCE.finditer(document.read_text("utf-8")):
                for verb in VERB.findall(block.group(0)):
                    if verb not in words:
                        unknown.append(f"{document.relative_to(ROOT)}: hone {verb}")
        self.assertEqual(unknown, [])

    def test_each_check_can_fail(self) -> None:
        """A tree with one fault of each kind."""
        with tempfile.TemporaryDirectory(prefix="hone-docs-") as folder:
            root = Path(folder)
            (root / "Makefile").write_text("build:\n\ttrue\n", "utf-8")
            (root / "README.md").write_text(
                "# A title\n## A `b` *c*\n[ok](#a-b-c) [gone](gone.md) [head](#nothing)\n"
                "[web](https://example.org/x) `make build` `make magic`\n"
                "```\n[not a link](inside-code.md)\n```\n",
                "utf-8",
            )
            self.assertEqual(
                broken_links(root), ["README.md: gone.md", "README.md: #nothing (no such heading)"]
            )
            self.assertEqual(unknown_targets(root), ["README.md: make magic"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--build", type=Path, default=BUILD)
    options, rest = parser.parse_known_args()
    BUILD = options.build.resolve()
    unittest.main(argv=[sys.argv[0], *rest])
