"""Makes the golden files of the tokenizer tests: small models, and digests of what oracles answer.

Oracles: `tokenizers` for tokenizer.json, llama.cpp (`llama_cpp`) for GGUF, `sentencepiece` beside
it. Needs `gguf` too. Where the two real models are in the cache, their digests are made as well.

    python tests/golden/tokenizer/make.py
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
import sysconfig
import tempfile
from pathlib import Path

import corpus
import gguf
import llama_cpp
import sentencepiece
from tokenizers import (
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

HERE = Path(__file__).parent
CHUNK = 100
STRINGS = 25_000  # of which a fifth may hold bytes that are not UTF-8
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")
SPECIALS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<s>", "</s>", "<unk>", "<tool_call>"]
SPECIALS += ["<bos>", "<start_of_turn>", "<end_of_turn>", "<unused7>", "<|im_"]
SPECIALS += ["\n\n", "  ", "<0x41>"]
MARK = "\u2581"


def training_text() -> list[str]:
    """Prose and code that every Python brings along, and the words of the corpus."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    names = ["argparse.py", "heapq.py", "random.py", "textwrap.py", "typing.py", "this.py"]
    lines = [line for name in names for line in (folder / name).read_text("utf-8").splitlines()]
    return lines + [" ".join(corpus.WORDS)] * 20


def train(tokenizer: Tokenizer, size: int, specials: list[str], *, byte_level: bool) -> dict:
    alphabet = pre_tokenizers.ByteLevel.alphabet() if byte_level else []
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=specials,
        initial_alphabet=alphabet,
        show_progress=False,
        limit_alphabet=400,
    )
    tokenizer.train_from_iterator(training_text(), trainer)
    return json.loads(tokenizer.to_str())


def with_tool_token(data: dict) -> dict:
    """A token that is no special one: found in text always."""
    last = max(token["id"] for token in data["added_tokens"])
    new = max(max(data["model"]["vocab"].values()), last) + 1
    data["added_tokens"].append(
        {"id": new, "content": "<tool_call>", "single_word": False, "lstrip": False}
        | {"rstrip": False, "normalized": False, "special": False}
    )
    return data


def small_models() -> dict[str, dict]:
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    chat = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    made: dict[str, dict] = {}

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    made["gpt2"] = train(tokenizer, 700, chat, byte_level=True)

    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(LLAMA3), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    data = train(tokenizer, 700, chat, byte_level=True)
    tokenizer = Tokenizer.from_str(json.dumps(data))
    template = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    tokenizer.post_processor = processors.Sequence(
        [processors.ByteLevel(trim_offsets=False), template]
    )
    made["llama3"] = json.loads(tokenizer.to_str())

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(QWEN2), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    made["qwen2"] = with_tool_token(train(tokenizer, 700, chat, byte_level=True))

    tokenizer = Tokenizer(models.BPE(unk_token="<|endoftext|>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    data = train(tokenizer, 700, chat, byte_level=True)
    for character in "\u0116ò":  # two bytes that the vocabulary lacks: 0x16 and 0xF2
        data["model"]["vocab"].pop(character)
    made["smollm"] = data

    for name in ("gemma", "llama2", "mistral"):
        made[name] = character_model(name)
    return made


def character_model(name: str) -> dict:
    """Merges over characters with byte tokens, as converted SentencePiece models have them."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    data = train(tokenizer, 1000, ["<unk>", "<s>", "</s>", *bytes_], byte_level=False)
    data["added_tokens"] = data["added_tokens"][:3]
    tokenizer = Tokenizer.from_str(json.dumps(data))
    ends = [decoders.Replace(MARK, " "), decoders.ByteFallback(), decoders.Fuse()]
    bos = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    if name == "gemma":
        tokenizer.normalizer = normalizers.Replace(" ", MARK)
        tokenizer.pre_tokenizer = pre_tokenizers.Split(" ", "merged_with_previous")
        tokenizer.decoder = decoders.Sequence(ends)
    elif name == "llama2":
        tokenizer.normalizer = normalizers.Sequence(
            [normalizers.Prepend(MARK), normalizers.Replace(" ", MARK)]
        )
        tokenizer.decoder = decoders.Sequence([*ends, decoders.Strip(" ", 1, 0)])
        tokenizer.post_processor = bos
    else:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Sequence([*ends, decoders.Strip(" ", 1, 0)])
        tokenizer.post_processor = bos
    data = json.loads(tokenizer.to_str())
    if name in ("gemma", "llama2"):
        data["pre_tokenizer"] = data["pre_tokenizer"] if name == "gemma" else None
    return data


def write_vocabulary_gguf(path: Path, kind: str, fields: dict) -> None:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_context_length(128)
    writer.add_embedding_length(8)
    writer.add_block_count(1)
    writer.add_feed_forward_length(8)
    writer.add_head_count(1)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_tokenizer_model(kind)
    writer.add_tokenizer_pre(fields.get("pre", "default"))
    writer.add_token_list(fields["tokens"])
    writer.add_token_types(fields["types"])
    if "merges" in fields:
        writer.add_token_merges(fields["merges"])
        writer.add_add_bos_token(False)
    if "scores" in fields:
        writer.add_token_scores(fields["scores"])
    writer.add_bos_token_id(fields["bos"])
    writer.add_eos_token_id(fields["eos"])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def bpe_fields(data: dict, pre: str) -> dict:
    vocabulary = data["model"]["vocab"]
    tokens = sorted(vocabulary, key=vocabulary.get)
    special = {token["content"] for token in data["added_tokens"] if token["special"]}
    merges = [m if isinstance(m, str) else " ".join(m) for m in data["model"]["merges"]]
    types = [3 if token in special else 1 for token in tokens]
    return {"pre": pre, "tokens": tokens, "types": types, "merges": merges, "bos": 0, "eos": 2}


def sentence_piece_fields() -> tuple[dict, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        sentencepiece.SentencePieceTrainer.Train(
            sentence_iterator=iter(training_text()),
            model_prefix=f"{folder}/m",
            model_type="bpe",
            vocab_size=1000,
            byte_fallback=True,
            normalization_rule_name="identity",
            remove_extra_whitespaces=False,
            split_digits=True,
            user_defined_symbols=["<tool_call>"],
            minloglevel=2,
        )
        proto = Path(f"{folder}/m.model").read_bytes()
    model = sentencepiece.SentencePieceProcessor(model_proto=proto)
    ids = range(model.vocab_size())
    types = [
        2 if model.IsUnknown(i) else 3 if model.IsControl(i) else 6 if model.IsByte(i) else 1
        for i in ids
    ]
    tokens = [model.IdToPiece(i) for i in ids]
    types[tokens.index("<tool_call>")] = 4
    scores = [model.GetScore(i) for i in ids]
    fields = {"tokens": tokens, "types": types, "scores": scores, "bos": 1, "eos": 2}
    return fields, proto


def chunks_of(answers: list[list[int]]) -> list[str]:
    return [corpus.digest(answers[i : i + CHUNK]) for i in range(0, len(answers), CHUNK)]


def entry(answers: list[list[int]], strings: list[bytes]) -> dict:
    cases = []
    for text, ids in list(zip(strings, answers, strict=True))[:60]:
        cases.append({"hex": text.hex(), "ids": ids})
    return {"specials": SPECIALS, "chunks": chunks_of(answers), "cases": cases}


def ask_hugging_face(data: dict, indices: list[int], strings: list[bytes]) -> list[list[int]]:
    tokenizer = Tokenizer.from_str(json.dumps(data))
    answers = []
    for i, text in zip(indices, strings, strict=True):
        tokenizer.encode_special_tokens = i % 2 != 0
        answers.append(tokenizer.encode(text.decode(), add_special_tokens=i % 3 == 0).ids)
    return answers


def ask_llama(path: Path, indices: list[int], strings: list[bytes]) -> list[list[int]]:
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False)
    return [
        model.tokenize(text, add_bos=i % 3 == 0, special=i % 2 == 0)
        for i, text in zip(indices, strings, strict=True)
    ]


def compact(data: object) -> str:
    return json.dumps(data, ensure_ascii=False, separators=(",", ":")) + "\n"


def main() -> None:
    every = list(range(STRINGS))
    all_strings = [corpus.make_string(i, SPECIALS) for i in every]
    valid = [i for i in every if not corpus.may_be_broken(i)]
    valid_strings = [all_strings[i] for i in valid]

    small = small_models()
    for name, data in small.items():
        (HERE / f"{name}.tokenizer.json").write_text(compact(data))
        answers = ask_hugging_face(data, valid, valid_strings)
        golden = {"valid_only": True, **entry(answers, valid_strings)}
        (HERE / f"{name}.gold.json").write_text(compact(golden))
        print(name, len(answers))

    # One file of byte-level BPE; the tests ask it under each name of a pre-tokenizer.
    for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2"):
        path = HERE / "bpe.gguf"
        write_vocabulary_gguf(path, "gpt2", bpe_fields(small["gpt2"], pre))
        golden = entry(ask_llama(path, every, all_strings), all_strings)
        (HERE / f"gguf-{pre}.gold.json").write_text(compact(golden))
        print(pre, len(every))

    fields, proto = sentence_piece_fields()
    path = HERE / "sentencepiece.gguf"
    write_vocabulary_gguf(path, "llama", fields)
    answers = ask_llama(path, every, all_strings)
    golden = entry(answers, all_strings)
    (HERE / "gguf-sentencepiece.gold.json").write_text(compact(golden))
    compare_with_sentencepiece(proto, valid, valid_strings, answers)

    cache = Path(os.environ.get("HONE_CACHE", Path.home() / ".cache/hone")) / "models"
    for model in ("smollm2-135m-instruct-q4_1", "gemma-3-270m-q4_k_m"):
        path = cache / f"{model}.gguf"
        if not path.exists():
            print(f"{path} is absent: its golden file stays as it is")
            continue
        golden = entry(ask_llama(path, every, all_strings), all_strings)
        (HERE / f"{model}.gold.json").write_text(compact(golden))
        print(model, len(every))


def compare_with_sentencepiece(
    proto: bytes, indices: list[int], strings: list[bytes], answers: list[list[int]]
) -> None:
    """Says how often the library agrees with llama.cpp on plain text: it has no special tokens."""
    model = sentencepiece.SentencePieceProcessor(model_proto=proto)
    asked = same = 0
    for i, text in zip(indices, strings, strict=True):
        if i % 3 == 0 or b"<" in text or MARK.encode() in text or b"\0" in text:
            continue
        asked += 1
        same += model.encode(text.decode()) == answers[i]
    print(f"sentencepiece agrees on {same} of {asked}")


if __name__ == "__main__":
    main()
