"""The command line as a user types it: results, errors, exit statuses, and what is left on disk.

python3 test_cli.py --build BUILD_FOLDER [unittest's arguments]
"""

# SPDX-License-Identifier: Apache-2.0
import argparse
import hashlib
import http.server
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import unittest
from pathlib import Path
from typing import Any, ClassVar

ROOT = Path(__file__).resolve().parents[2]
BUILD = ROOT / "build" / "release"
MODELS = ROOT / "tests" / "golden" / "models"
TOKENIZERS = ROOT / "tests" / "golden" / "tokenizer"

INVALID, NOT_FOUND, CORRUPT, UNSUPPORTED, OUT_OF_RANGE, IO = 2, 3, 4, 5, 6, 8


class Case(unittest.TestCase):
    """A temporary folder with a cache of its own, and the program."""

    def setUp(self) -> None:
        self.program = BUILD / "hone"
        if not self.program.exists():
            self.skipTest(f"{self.program} is absent: build the target hone")
        folder = tempfile.TemporaryDirectory(prefix="hone-e2e-")
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.cache = self.folder / "cache"

    def hone(self, *words: object, text: str = "") -> subprocess.CompletedProcess[str]:
        """Runs the program in the temporary folder."""
        variables = {**os.environ, "HONE_CACHE": str(self.cache), "NO_COLOR": "1"}
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "HF_ENDPOINT"):
            variables.pop(name, None)
        return subprocess.run(
            [self.program, *map(str, words)],
            capture_output=True,
            text=True,
            input=text,
            cwd=self.folder,
            env=variables,
            check=False,
            timeout=120,
        )

    def result(self, *words: object, text: str = "") -> dict[str, Any]:
        """The JSON document of a call that works."""
        done = self.hone(*words, "--json", text=text)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        document = json.loads(done.stdout)
        assert isinstance(document, dict)
        return document

    def fails(self, status: int, *words: object, naming: str = "") -> str:
        """The error of a call that must fail; its text must name `naming`."""
        done = self.hone(*words)
        self.assertEqual(done.returncode, status, done.stdout + done.stderr)
        self.assertTrue(done.stderr.startswith("error: "), done.stderr)
        self.assertIn(naming, done.stderr)
        as_json = self.hone(*words, "--json")
        self.assertEqual(as_json.returncode, status)
        self.assertIn("what", json.loads(as_json.stdout)["error"])
        self.assertEqual(as_json.stderr, "")
        return done.stderr

    def files(self) -> set[str]:
        """What lies in the temporary folder."""
        found = (path for path in self.folder.rglob("*") if path.is_file())
        return {path.relative_to(self.folder).as_posix() for path in found}


class FrameTest(Case):
    """Help, versions, unknown names."""

    def verbs(self) -> list[str]:
        """Every verb of the list."""
        lines = (ROOT / "src" / "cli" / "list.inc").read_text("utf-8").splitlines()
        return [line[10:].split(")")[0] for line in lines if line.startswith("HONE_VERB(")]

    def test_help(self) -> None:
        overview = self.hone().stdout
        self.assertEqual(overview, self.hone("help").stdout)
        self.assertEqual(overview, self.hone("--help").stdout)
        for verb in self.verbs():
            self.assertIn(f"\n  {verb} ", overview)
            page = self.hone("help", verb)
            self.assertEqual(page.returncode, 0, page.stderr)
            self.assertIn("Example", page.stdout)
            self.assertIn(f"hone {verb}", page.stdout.split("Example")[1])
            self.assertEqual(page.stdout, self.hone(verb, "--help").stdout)

    def test_version(self) -> None:
        self.assertRegex(self.hone("--version").stdout, r"^hone \d+\.\d+\.\d+\n$")

    def test_unknown_names(self) -> None:
        self.fails(INVALID, "inspekt", naming="hone inspect")
        self.fails(INVALID, "help", "inspekt", naming="hone inspect")
        self.fails(INVALID, "inspect", "x", "--tensor", naming="--tensors")
        self.fails(INVALID, "inspect", naming="MODEL")
        self.fails(INVALID, "inspect", "x", "y", naming="one argument too many")
        self.fails(INVALID, "inspect", "x", "--context", "many", naming="whole number")

    def test_full_disk(self) -> None:
        if not Path("/dev/full").exists():
            self.skipTest("no /dev/full here")
        with Path("/dev/full").open("w", encoding="utf-8") as full:
            done = subprocess.run(
                [self.program, "help"], stdout=full, stderr=subprocess.PIPE, check=False
            )
        self.assertEqual(done.returncode, IO)

    def test_doctor(self) -> None:
        report = self.result("doctor", "--no-measure")
        self.assertGreaterEqual(report["threads"], 1)
        self.assertIn(report["kernels"], ("scalar", "avx2", "avx512"))
        self.assertIn("hone will use", self.hone("doctor", "--no-measure").stdout)


class ModelTest(Case):
    """Verbs on the tiny golden models."""

    NAMES = ("llama", "llama-rope3", "gemma3", "gemma3-linear", "qwen2", "qwen3", "gpt2")

    def with_tokenizer(self, name: str, tokenizer: str) -> Path:
        """A copy of a golden folder with a tokenizer."""
        folder = self.folder / "with-tokenizer"
        shutil.copytree(MODELS / name, folder)
        shutil.copy(TOKENIZERS / f"{tokenizer}.tokenizer.json", folder / "tokenizer.json")
        return folder

    def test_inspect_folders(self) -> None:
        for name in self.NAMES:
            with self.subTest(name):
                report = self.result("inspect", MODELS / name)
                config = json.loads((MODELS / name / "config.json").read_text("utf-8"))
                layers = config.get("num_hidden_layers", config.get("n_layer"))
                architecture = report["metadata"]["general.architecture"]
                self.assertEqual(report["metadata"][f"{architecture}.block_count"], layers)
                self.assertGreater(report["memory"]["cache"]["f16"]["bytes_per_token"], 0)

    def test_round_trip(self) -> None:
        """Folder to GGUF to folder to GGUF: the second file equals the first."""
        for name in self.NAMES:
            with self.subTest(name):
                first = self.folder / f"{name}.gguf"
                back = self.folder / f"{name}-back"
                second = self.folder / f"{name}-again.gguf"
                self.result("convert", MODELS / name, first, "--type", "f32")
                self.result("convert", first, back, "--type", "f32")
                self.result("convert", back, second, "--type", "f32")
                one, two = self.tensors(first), self.tensors(second)
                self.assertEqual(one.keys(), two.keys())
                for tensor, (shape, data) in one.items():
                    self.assertEqual(two[tensor], (shape, data), tensor)
                keys = [self.result("inspect", path)["metadata"] for path in (first, second)]
                for each in keys:
                    each.pop("general.name")
                self.assertEqual(keys[0], keys[1])

    def tensors(self, path: Path) -> dict[str, tuple[tuple[int, ...], bytes]]:
        """Shapes and bytes of a GGUF file's tensors, from inspect's offsets."""
        content = path.read_bytes()
        listed = self.result("inspect", path)["tensors"]
        return {
            each["name"]: (
                tuple(each["shape"]),
                content[each["offset"] : each["offset"] + each["bytes"]],
            )
            for each in listed
        }

    def test_quantize(self) -> None:
        report = self.result("quantize", MODELS / "llama", "q.gguf", "--type", "q4_0")
        self.assertLess(report["bytes_after"], report["bytes_before"])
        self.assertLess(report["relative_error"], 0.2)
        types = {each["name"]: each["to"] for each in report["tensors"]}
        self.assertEqual(types["blk.0.attn_q.weight"], "q4_0")
        self.assertEqual(types["token_embd.weight"], "q8_0")
        self.assertEqual(types["blk.0.attn_norm.weight"], "f32")
        again = self.hone("quantize", "q.gguf", "again.gguf", "--type", "q4_k")
        self.assertEqual(again.returncode, 0, again.stderr)
        self.assertIn("loses quality", again.stderr)
        self.assertIn("q5_0", again.stderr)  # rows of 64 are no blocks of 256
        self.fails(INVALID, "quantize", "q.gguf", "x.gguf", "--type", "q4_9", naming="q4_0")
        self.fails(INVALID, "quantize", "q.gguf", "q.gguf", "--type", "q8_0", naming="same file")
        self.fails(INVALID, "quantize", "q.gguf", "x.gguf", naming="--type")
        self.assertEqual(self.files(), {"q.gguf", "again.gguf"})

    def test_tokenize(self) -> None:
        folder = self.with_tokenizer("llama", "llama3")
        report = self.result("tokenize", folder, "Hello, world")
        self.assertEqual(len(report["ids"]), report["count"])
        ids = self.hone("tokenize", folder, "--ids", text="Hello, world").stdout
        self.assertEqual([int(word) for word in ids.split()], report["ids"])
        plain = self.hone("tokenize", folder, "--ids", "--no-special", "Hello, world").stdout
        self.assertEqual(self.hone("tokenize", folder, "--decode", plain).stdout, "Hello, world")
        self.fails(OUT_OF_RANGE, "tokenize", folder, "--decode", "99999999", naming="--decode")
        self.fails(INVALID, "tokenize", folder, "--decode", "x", naming="--decode")
        self.fails(NOT_FOUND, "tokenize", MODELS / "llama", "x", naming="tokenizer.json")

    def test_vocabulary_only(self) -> None:
        report = self.result("tokenize", TOKENIZERS / "bpe.gguf", "Hello")
        self.assertGreater(report["count"], 0)


class DataTest(Case):
    """`hone data` with a tokenizer and a template of a Hugging Face folder."""

    CHAT = (
        "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + "
        "'<|im_end|>\\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
    )

    def setUp(self) -> None:
        super().setUp()
        self.model = self.folder / "model"
        shutil.copytree(MODELS / "llama", self.model)
        shutil.copy(TOKENIZERS / "smollm.tokenizer.json", self.model / "tokenizer.json")
        config = {"chat_template": self.CHAT, "eos_token": "<|im_end|>"}
        (self.model / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text, "utf-8")

    def test_forms(self) -> None:
        """The same two questions in every form give the same examples."""
        pairs = [("What is 1 + 1?", 'Two, "2".'), ("Say hi.", "Hi!\nAgain.")]
        objects = [{"prompt": asked, "completion": answer} for asked, answer in pairs]
        chats = [
            {"messages": [{"role": "user", "content": a}, {"role": "assistant", "content": b}]}
            for a, b in pairs
        ]
        shares = [
            {"conversations": [{"from": "human", "value": a}, {"from": "gpt", "value": b}]}
            for a, b in pairs
        ]
        alpaca = [{"instruction": a, "input": "", "output": b} for a, b in pairs]
        self.write("lines", "".join(json.dumps(each) + "\n" for each in objects))
        self.write("list", json.dumps(chats, indent=1))
        self.write("share", json.dumps({"data": shares}))
        self.write("alpaca", "".join(json.dumps(each) + "\n\n" for each in alpaca))
        quoted = [[part.replace('"', '""') for part in pair] for pair in pairs]
        rows = "".join(f'"{a}","{b}"\r\n' for a, b in quoted)
        self.write("table", "prompt,completion\r\n" + rows)
        seen = []
        for name in ("lines", "list", "share", "alpaca", "table"):
            report = self.result("data", name, "--model", self.model, "--show", 9)
            self.assertTrue(report["ok"], report["checks"])
            self.assertEqual((report["records"], report["kept"]), (2, 2))
            seen.append([(each["tokens"], each["learn"]) for each in report["examples"]])
        for each in seen[1:]:
            self.assertEqual(each, seen[0])
        example = report["examples"][0]
        learned = [p for p, on in zip(example["pieces"], example["learn"], strict=True) if on]
        self.assertEqual("".join(learned), 'Two, "2".<|im_end|>')
        everything = self.result("data", "lines", "--model", self.model, "--everything")
        self.assertEqual(everything["learned_tokens"], everything["tokens"] - 2)

    def test_picture(self) -> None:
        self.write("a.jsonl", '{"prompt": "x", "completion": "y"}\n{"text": "z"}\n')
        shown = self.hone("data", "a.jsonl", "--model", self.model, "--line", 1).stdout
        self.assertIn("[y][<|im_end|>]\\n·", shown)
        self.assertIn("<|im_start|>·", shown)
        self.assertIn("  ok  ", shown)
        self.assertNotIn("line 2", shown)

    def test_bad_data(self) -> None:
        good = '{"prompt": "x", "completion": "y"}\n'
        self.write("broken.jsonl", good + '{"prompt": "x", \n')
        text = self.fails(
            CORRUPT, "data", "broken.jsonl", "-m", self.model, naming="line 2, column"
        )
        self.assertIn("1 of 2 records (50 %)", text)
        report = self.result("data", "broken.jsonl", "-m", self.model, "--drop", 0.5)
        self.assertEqual(report["dropped"], 1)
        self.assertEqual(report["first_dropped"][0]["line"], 2)
        self.write("empty.jsonl", "\n")
        self.fails(CORRUPT, "data", "empty.jsonl", "-m", self.model, naming="empty")
        self.write("open.csv", 'prompt,completion\na,"b\n')
        self.fails(CORRUPT, "data", "open.csv", "-m", self.model, naming="line 2")
        role = '{"messages": [{"role": "narrator", "content": "x"}]}'
        self.write("role.jsonl", role)
        self.fails(CORRUPT, "data", "role.jsonl", "-m", self.model, naming="narrator")
        self.write("good.jsonl", good)
        self.fails(CORRUPT, "data", "good.jsonl", "-m", self.model, "-l", 4, naming="--length")
        self.fails(NOT_FOUND, "data", "gone.jsonl", "-m", self.model, naming="gone.jsonl")
        self.fails(INVALID, "data", "good.jsonl", naming="--model")
        self.fails(OUT_OF_RANGE, "data", "good.jsonl", "-m", self.model, "--line", 7, naming="7")


class BadInputTest(Case):
    """Each break gets its exit status and its place, and leaves nothing behind."""

    def setUp(self) -> None:
        super().setUp()
        self.good = self.folder / "good.gguf"
        self.result("convert", MODELS / "llama", self.good)

    def refused(self, status: int, content: bytes, naming: str) -> None:
        """Every verb that reads a model refuses this file."""
        bad = self.folder / "bad.gguf"
        bad.write_bytes(content)
        before = self.files()
        for words in (
            ("inspect", bad),
            ("tokenize", bad, "x"),
            ("quantize", bad, "out.gguf", "--type", "q8_0"),
            ("convert", bad, "out"),
            ("convert", bad, "out.gguf"),
            ("run", bad, "-p", "x"),
        ):
            with self.subTest(words[0]):
                error = self.fails(status, *words, naming=naming)
                self.assertIn("bad.gguf", error)
                self.assertEqual(self.files(), before)
                self.assertFalse((self.folder / "out").exists())

    def test_truncated(self) -> None:
        content = self.good.read_bytes()
        self.refused(CORRUPT, content[: len(content) // 2], "outside of the file")
        self.refused(CORRUPT, content[:100], "byte")

    def test_wrong_magic(self) -> None:
        self.refused(CORRUPT, b"ELF!" + self.good.read_bytes()[4:], "'GGUF'")

    def test_overflowing_dimensions(self) -> None:
        content = self.good.read_bytes()
        name = b"blk.0.attn_q.weight"
        at = content.index(name) + len(name) + 4
        huge = struct.pack("<QQ", 1 << 62, 1 << 62)
        self.refused(CORRUPT, content[:at] + huge + content[at + 16 :], "blk.0.attn_q.weight")

    def test_unknown_type(self) -> None:
        content = self.good.read_bytes()
        name = b"blk.0.attn_q.weight"
        at = content.index(name) + len(name) + 4 + 16
        unknown = struct.pack("<I", 4242)
        self.refused(UNSUPPORTED, content[:at] + unknown + content[at + 4 :], "4242")

    def test_missing(self) -> None:
        self.fails(NOT_FOUND, "inspect", "no/such.gguf", naming="no/such.gguf")
        self.fails(NOT_FOUND, "inspect", "smolm2", naming="smollm2")
        self.fails(NOT_FOUND, "inspect", "smollm2", naming="hone fetch smollm2")
        empty = self.folder / "empty"
        empty.mkdir()
        self.fails(NOT_FOUND, "inspect", empty, naming="config.json")

    def folder_with(self, **changes: object) -> Path:
        """A copy of a golden folder with another config.json."""
        folder = self.folder / "changed"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(MODELS / "llama", folder)
        config = json.loads((folder / "config.json").read_text("utf-8"))
        for key, value in changes.items():
            config.pop(key, None)
            if value is not None:
                config[key] = value
        (folder / "config.json").write_text(json.dumps(config), "utf-8")
        return folder

    def test_config(self) -> None:
        for status, changes in (
            (UNSUPPORTED, {"model_type": "mamba"}),
            (UNSUPPORTED, {"hidden_act": "relu"}),
            (UNSUPPORTED, {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}),
            (UNSUPPORTED, {"sliding_window": 4096}),
            (NOT_FOUND, {"hidden_size": None}),
            (CORRUPT, {"hidden_size": "many"}),
            (CORRUPT, {"num_hidden_layers": -2}),
            (CORRUPT, {"num_attention_heads": 7}),
        ):
            with self.subTest(str(changes)):
                key = next(iter(changes))
                naming = "q_proj" if key == "num_attention_heads" else key
                self.fails(status, "inspect", self.folder_with(**changes), naming=naming)
        folder = self.folder_with()
        (folder / "config.json").write_text("{", "utf-8")
        self.fails(CORRUPT, "inspect", folder, naming="config.json")

    def test_no_overwriting_of_folders(self) -> None:
        kept = self.folder / "kept"
        kept.mkdir()
        (kept / "mine.txt").write_text("mine", "utf-8")
        self.fails(INVALID, "convert", self.good, kept, naming="not empty")
        self.assertEqual((kept / "mine.txt").read_text("utf-8"), "mine")


class Server(http.server.BaseHTTPRequestHandler):
    """A file host with ranges that can drop a connection in the middle."""

    CONTENT: ClassVar[bytes] = bytes(i * 31 % 251 for i in range(300_000))
    etag: ClassVar[str] = '"one"'
    drops: ClassVar[int] = 0  # so many answers break off after 100,000 bytes
    failures: ClassVar[int] = 0  # so many answers are 503
    ranges: ClassVar[list[str]] = []

    def do_GET(self) -> None:
        """Answers one request."""
        kind = type(self)
        wanted = self.headers.get("Range", "")
        kind.ranges.append(wanted)
        if kind.failures > 0:
            kind.failures -= 1
            self.send_error(503)
            return
        if self.path.startswith("/moved/"):
            self.send_response(302)
            self.send_header("Location", self.path.removeprefix("/moved"))
            self.end_headers()
            return
        if self.path.startswith("/private/"):
            self.send_error(401)
            return
        if not self.path.endswith("model.gguf"):
            self.send_error(404)
            return
        start = 0
        if wanted and self.headers.get("If-Range") == kind.etag:
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            self.send_response(206)
            size = len(kind.CONTENT)
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        else:
            self.send_response(200)
        body = kind.CONTENT[start:]
        self.send_header("ETag", kind.etag)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if kind.drops > 0:
            kind.drops -= 1
            body = body[:100_000]
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: the test's output is the test's."""


class FetchTest(Case):
    """Downloads from a server on this machine."""

    def setUp(self) -> None:
        super().setUp()
        Server.drops = Server.failures = 0
        Server.etag = '"one"'
        Server.ranges = []
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.host = f"http://127.0.0.1:{server.server_address[1]}"
        self.path = self.cache / "models" / "model.gguf"
        self.sha256 = hashlib.sha256(Server.CONTENT).hexdigest()

    def test_whole(self) -> None:
        report = self.result("fetch", f"{self.host}/a/model.gguf", "--sha256", self.sha256)
        self.assertEqual(self.path.read_bytes(), Server.CONTENT)
        self.assertEqual(report["sha256"], self.sha256)
        self.assertEqual(self.files(), {"cache/models/model.gguf"})
        asked = len(Server.ranges)
        self.assertFalse(self.result("fetch", f"{self.host}/a/model.gguf")["fetched"])
        self.assertEqual(len(Server.ranges), asked)
        self.assertTrue(self.result("fetch", f"{self.host}/a/model.gguf", "--force")["fetched"])

    def test_hub(self) -> None:
        self.result("fetch", "hf:owner/repository/model.gguf", "--endpoint", f"{self.host}/moved")
        self.assertEqual(self.path.read_bytes(), Server.CONTENT)

    def test_dropped_and_resumed(self) -> None:
        """One call goes on by itself, from the byte where the connection broke off."""
        Server.drops = 2
        self.result("fetch", f"{self.host}/model.gguf", "--sha256", self.sha256)
        self.assertEqual(self.path.read_bytes(), Server.CONTENT)
        self.assertEqual(Server.ranges, ["", "bytes=100000-", "bytes=200000-"])

    def part(self) -> None:
        """Leaves what an earlier call would have."""
        self.path.parent.mkdir(parents=True)
        Path(f"{self.path}.partial").write_bytes(Server.CONTENT[:1000])
        note = {"url": f"{self.host}/model.gguf", "validator": '"one"'}
        Path(f"{self.path}.partial.json").write_text(json.dumps(note), "utf-8")

    def test_resumed_by_a_later_call(self) -> None:
        self.part()
        self.assertEqual(self.result("fetch", f"{self.host}/model.gguf")["resumed_from"], 1000)
        self.assertEqual(self.path.read_bytes(), Server.CONTENT)
        self.assertEqual(self.files(), {"cache/models/model.gguf"})

    def test_changed_on_the_server(self) -> None:
        """A part of an older file is not mixed with the new one."""
        self.part()
        Server.etag = '"two"'
        self.assertEqual(self.result("fetch", f"{self.host}/model.gguf")["resumed_from"], 0)
        self.assertEqual(self.path.read_bytes(), Server.CONTENT)

    def test_busy_server(self) -> None:
        Server.failures = 2
        self.result("fetch", f"{self.host}/model.gguf")
        self.assertEqual(self.path.read_bytes(), Server.CONTENT)

    def test_refused(self) -> None:
        for status, address, naming in (
            (NOT_FOUND, f"{self.host}/other.gguf", "404"),
            (IO, f"{self.host}/private/model.gguf", "401"),
            (INVALID, "ftp://127.0.0.1/model.gguf", "https://"),
            (INVALID, f"{self.host}/", "--output"),
            (INVALID, "hf:owner", "hf:owner/repository/file.gguf"),
            (NOT_FOUND, "smolm2", "smollm2"),
        ):
            with self.subTest(address):
                self.fails(status, "fetch", address, naming=naming)
                self.assertEqual(self.files(), set())

    def test_wrong_checksum(self) -> None:
        wrong = "0" * 64
        self.fails(
            CORRUPT, "fetch", f"{self.host}/model.gguf", "--sha256", wrong, naming=self.sha256
        )
        self.assertEqual(self.files(), set())
        self.fails(INVALID, "fetch", f"{self.host}/model.gguf", "--sha256", "12", naming="64")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(add_help=False)
    parser.add_argument("--build", type=Path, default=BUILD)
    options, rest = parser.parse_known_args()
    BUILD = options.build.resolve()
    unittest.main(argv=[sys.argv[0], *rest])
