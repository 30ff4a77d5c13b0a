"""Counts the places that an addition touches: one new file and one line in a list.

For each kind of addition a copy of the tree gets a new member, made from a present one by renaming
it; then the new file and what expands the list are compiled, and a small program linked to the rest
asks the registry for the newcomer.

    python3 test_places.py --build BUILD_FOLDER [unittest's arguments]
"""

# SPDX-License-Identifier: Apache-2.0
import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "release"
NAME = "newcomer"


@dataclass(frozen=True)
class Addition:
    """A kind of addition, made after the member `like` of `folder`."""

    kind: str
    folder: str
    like: str
    registries: tuple[str, ...]  # the sources that expand the list
    probe: str  # a program that returns 0 if the registry knows the newcomer
    # Other lists that this kind touches, with the line they get.
    more_lines: dict[str, str] = field(default_factory=dict)


ADDITIONS = (
    Addition(
        "op",
        "src/ops",
        "multiply",
        ("src/ops/registry.cpp",),
        '#include "ops/registry.h"\n'
        f'int main() {{ return hone::ops::find_op("{NAME}") != nullptr ? 0 : 1; }}\n',
    ),
    Addition(
        "rewrite pass",
        "src/passes/rewrite",
        "dce",
        ("src/passes/pass.cpp",),
        '#include "passes/pass.h"\n'
        f'int main() {{ return hone::passes::find_pass("{NAME}") != nullptr ? 0 : 1; }}\n',
    ),
    Addition(
        "block format",
        "src/quant",
        "iq4_nl",
        ("src/quant/codec.cpp", "src/base/dtype.cpp"),
        '#include "quant/codec.h"\n'
        "int main() {\n"
        f'  const auto dtype = hone::dtype_from_name("{NAME}");\n'
        "  return dtype && hone::quant::find_codec(*dtype) != nullptr ? 0 : 1;\n"
        "}\n",
        # A new format is a new element type, too: two lists, a line each.
        {"src/base/dtype.inc": f'HONE_DTYPE(kNewcomer, "{NAME}", 32, 18, -1)'},
    ),
    Addition(
        "model family",
        "src/models",
        "llama",
        ("src/models/family.cpp",),
        '#include "models/family.h"\n'
        f'int main() {{ return hone::models::find_family("{NAME}") != nullptr ? 0 : 1; }}\n',
    ),
    Addition(
        "update rule",
        "src/optim",
        "lion",
        ("src/optim/registry.cpp",),
        '#include "optim/registry.h"\n'
        f'int main() {{ return hone::optim::find_rule("{NAME}") != nullptr ? 0 : 1; }}\n',
    ),
    Addition(
        "verb",
        "src/cli",
        "doctor",
        ("src/cli/registry.cpp",),
        '#include "cli/registry.h"\n'
        f'int main() {{ return hone::cli::find_verb("{NAME}") != nullptr ? 0 : 1; }}\n',
    ),
)

KERNEL = f"""// Adds one to each element.
// SPDX-License-Identifier: Apache-2.0

namespace hone::kernels::HONE_ISA_NAMESPACE {{

void {NAME}(std::span<float> x) {{
  for (float& value : x) value += 1.0f;
}}

}}  // namespace hone::kernels::HONE_ISA_NAMESPACE
"""
KERNEL_LINE = f"HONE_KERNEL({NAME}, void, (std::span<float> x))  // {NAME}.inl"


def snapshot(tree: Path) -> dict[str, str]:
    """Every source of a tree by its path."""
    files = (path for path in tree.rglob("*") if path.is_file())
    return {path.relative_to(tree).as_posix(): path.read_text("utf-8") for path in files}


def renamed(text: str, like: str) -> str:
    """A member's text under the new name: q4, q4_op, decode_q4, kQ4."""
    text = re.sub(rf"\bk{re.escape(like)}\b", "kNewcomer", text, flags=re.IGNORECASE)
    return re.sub(rf"(?<![A-Za-z0-9]){re.escape(like)}(?![A-Za-z0-9])", NAME, text)


def append_line(path: Path, line: str) -> None:
    """Adds one line at the end of a list."""
    text = path.read_text("utf-8")
    path.write_text(text + ("" if text.endswith("\n") else "\n") + line + "\n", "utf-8")


class Compiler:
    """The build's own commands, turned towards a copy of the tree."""

    def __init__(self, tree: Path) -> None:
        self.tree = tree
        entries = json.loads((BUILD / "compile_commands.json").read_text("utf-8"))
        self.commands = {Path(entry["file"]).resolve(): entry["command"] for entry in entries}

    def command(self, like: Path) -> list[str]:
        """The command for a source of the project, without its input and output."""
        words = shlex.split(self.commands[like.resolve()])
        source = str(ROOT / "src")
        kept = []
        position = 0
        while position < len(words):
            word = words[position]
            if word in ("-o", "-c", "-MF", "-MT"):
                position += 2
                continue
            if not word.startswith("-M"):
                kept.append(word.replace(source, str(self.tree / "src")))
            position += 1
        # Not optimized: what counts is that it compiles.
        return [word for word in kept if not re.fullmatch("-O[0-9s]", word)]

    def run(self, like: Path, arguments: list[str]) -> None:
        """Runs the compiler; the error is what it said."""
        command = [*self.command(like), *arguments]
        result = subprocess.run(command, capture_output=True, text=True, cwd=BUILD, check=False)
        if result.returncode != 0:
            raise AssertionError(f"{shlex.join(command)}\n{result.stderr}")


class PlacesTest(unittest.TestCase):
    """One test for each kind of addition."""

    def setUp(self) -> None:
        if not (BUILD / "compile_commands.json").exists():
            self.skipTest(f"no compile_commands.json in {BUILD}: configure first")
        folder = tempfile.TemporaryDirectory(prefix="hone-places-")
        self.addCleanup(folder.cleanup)
        self.tree = Path(folder.name).resolve()
        for part in ("src", "cmake"):
            shutil.copytree(ROOT / part, self.tree / part)
        shutil.copy(ROOT / "CMakeLists.txt", self.tree)
        self.before = snapshot(self.tree)

    def expect_places(self, new_file: str, lists: dict[str, str]) -> None:
        """Exactly one file is new, and each list has exactly its line more."""
        after = snapshot(self.tree)
        self.assertEqual(sorted(set(after) - set(self.before)), [new_file])
        changed = [path for path in self.before if after.get(path) != self.before[path]]
        self.assertEqual(sorted(changed), sorted(lists))
        for path, line in lists.items():
            self.assertEqual(after[path], self.before[path].rstrip("\n") + "\n" + line + "\n")

    def link_and_ask(self, addition: Addition, new_file: str) -> None:
        """Compiles what changed, links it to the rest as it was built, runs the probe."""
        compiler = Compiler(self.tree)
        like = ROOT / addition.folder / f"{addition.like}.cpp"
        probe = self.tree / "probe.cpp"
        probe.write_text(addition.probe, "utf-8")
        objects = []
        for source in (str(probe), *addition.registries, new_file):
            objects.append(str(self.tree / (Path(source).stem + ".o")))
            known = ROOT / source if source in addition.registries else like
            compiler.run(known, ["-c", str(self.tree / source), "-o", objects[-1]])
        libraries = sorted(str(path) for path in BUILD.glob("libhone_*.a"))
        libraries += [str(path) for path in BUILD.glob("chat_template/target/release/*.a")]
        room = addition.folder.split("/")[1]
        if str(BUILD / f"libhone_{room}.a") not in libraries:
            self.skipTest(f"the room {room} is not built in {BUILD}")
        program = str(self.tree / "probe")
        # The new registry comes first: the old one in its library is then not needed.
        link = [*objects, "-Wl,--start-group", *libraries, "-Wl,--end-group"]
        outside = ["fmt", "sqlite3", "pcre2-8", "utf8proc", "readline", "z", "dl", "pthread"]
        compiler.run(like, [*link, *(f"-l{name}" for name in outside), "-o", program])
        self.assertEqual(subprocess.run([program], check=False).returncode, 0, "not registered")

    def add_and_ask(self, addition: Addition) -> None:
        """Adds a member after another, counts the places, and asks for it."""
        member = self.tree / addition.folder / f"{addition.like}.cpp"
        list_file = f"{addition.folder}/list.inc"
        if not member.exists() or not (self.tree / list_file).exists():
            self.skipTest(f"no {addition.folder} with a list and a {addition.like} yet")
        new_file = f"{addition.folder}/{NAME}.cpp"
        (self.tree / new_file).write_text(
            renamed(member.read_text("utf-8"), addition.like), "utf-8"
        )
        pattern = rf"^HONE_\w+\((?:.*\b)?{addition.like}\b.*\).*$"
        lines = re.findall(pattern, (self.tree / list_file).read_text("utf-8"), flags=re.MULTILINE)
        self.assertEqual(len(lines), 1, f"one line of {list_file} names {addition.like}")
        lists = {list_file: renamed(lines[0], addition.like), **addition.more_lines}
        for path, line in lists.items():
            append_line(self.tree / path, line)
        self.expect_places(new_file, lists)
        self.link_and_ask(addition, new_file)

    def test_kernel(self) -> None:
        """A kernel family: one .inl file and a line, compiled for every instruction set."""
        list_file, new_file = "src/kernels/list.inc", f"src/kernels/{NAME}.inl"
        template = (self.tree / "cmake/isa.cpp.in").read_text("utf-8")
        (self.tree / new_file).write_text(KERNEL, "utf-8")
        append_line(self.tree / list_file, KERNEL_LINE)
        self.expect_places(new_file, {list_file: KERNEL_LINE})
        compiler = Compiler(self.tree)
        isas = sorted(BUILD.glob("isa/elementwise_*.cpp"))
        self.assertTrue(isas, "the build generates a file for each instruction set")
        for like in isas:
            isa = like.stem.removeprefix("elementwise_")
            text = template.replace("@HONE_FAMILY@", NAME).replace("@HONE_ISA@", isa)
            source = self.tree / f"{NAME}_{isa}.cpp"
            source.write_text(text, "utf-8")
            compiler.run(like, ["-fsyntax-only", str(source)])
        registry = "src/kernels/registry.cpp"
        compiler.run(ROOT / registry, ["-fsyntax-only", str(self.tree / registry)])

    def test_a_second_place_is_noticed(self) -> None:
        """The count can fail: an addition that edits another file is refused."""
        (self.tree / f"src/ops/{NAME}.cpp").write_text("", "utf-8")
        append_line(self.tree / "src/ops/list.inc", f"HONE_OP({NAME})")
        append_line(self.tree / "src/ops/registry.cpp", "// one more")
        with self.assertRaises(AssertionError):
            self.expect_places(f"src/ops/{NAME}.cpp", {"src/ops/list.inc": f"HONE_OP({NAME})"})


def test_of(addition: Addition) -> Callable[[PlacesTest], None]:
    """A test method for an addition, so that each kind passes, fails or skips alone."""

    def test(self: PlacesTest) -> None:
        self.add_and_ask(addition)

    test.__doc__ = f"A {addition.kind}: one file and one line."
    return test


for each in ADDITIONS:
    setattr(PlacesTest, "test_" + each.kind.replace(" ", "_"), test_of(each))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--build", type=Path, default=BUILD)
    options, rest = parser.parse_known_args()
    BUILD = options.build.resolve()
    unittest.main(argv=[sys.argv[0], *rest])
