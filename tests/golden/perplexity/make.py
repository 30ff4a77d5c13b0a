"""Golden perplexities of text.txt: llama.cpp's on the quantized files, and transformers' in float32
on the same weights, dequantized.

    python make.py [NAME...]   # of the two models; the GGUF files are those in hone's cache

Writes perplexity.json, keeping what it says of models that are not named. The definition is that
of llama.cpp's own tool (tools/perplexity):
  - the whole text becomes tokens, with the special tokens that the model adds in front;
  - chunks of n_ctx tokens without overlap, a remainder is dropped;
  - the first token of each chunk is *replaced* by BOS if the model adds BOS;
  - positions n_ctx/2 ... n_ctx-2 predict their successors: n_ctx - 1 - n_ctx/2 scores a chunk;
  - exp of the mean negative log-likelihood over all of them.
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import ctypes
import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import torch

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "models"))
from make import REAL, cache_folder, load_real  # noqa: E402

CONTEXTS = (512, 128)  # of llama.cpp; transformers, slower, gets the first alone
# tokens of one chunk -> (scored positions, vocabulary) logits from position n_ctx / 2 on
Scorer = Callable[[list[int]], np.ndarray]


class LlamaCpp:
    """One model with the logits of every token of a chunk."""

    def __init__(self, file: Path) -> None:
        llama_cpp.llama_backend_init()
        self.model = llama_cpp.llama_model_load_from_file(
            str(file).encode(), llama_cpp.llama_model_default_params()
        )
        self.vocab = llama_cpp.llama_model_get_vocab(self.model)
        self.size = llama_cpp.llama_vocab_n_tokens(self.vocab)
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = params.n_ubatch = max(CONTEXTS)
        params.n_threads = params.n_threads_batch = 2
        self.context = llama_cpp.llama_init_from_model(self.model, params)
        self.batch = llama_cpp.llama_batch_init(max(CONTEXTS), 0, 1)

    def tokenize(self, text: bytes) -> list[int]:
        found = (llama_cpp.llama_token * (len(text) + 8))()
        count = llama_cpp.llama_tokenize(
            self.vocab, text, len(text), found, len(found), True, False
        )
        return list(found[:count])

    def bos(self) -> int | None:
        """The token put in front, or None if this model adds none."""
        adds = llama_cpp.llama_vocab_get_add_bos(self.vocab)
        return int(llama_cpp.llama_vocab_bos(self.vocab)) if adds else None

    def score(self, tokens: list[int]) -> np.ndarray:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        first = len(tokens) // 2
        self.batch.n_tokens = len(tokens)
        for i, token in enumerate(tokens):
            self.batch.token[i] = token
            self.batch.pos[i] = i
            self.batch.n_seq_id[i] = 1
            self.batch.seq_id[i][0] = 0
            self.batch.logits[i] = i >= first
        if llama_cpp.llama_decode(self.context, self.batch) != 0:
            raise SystemExit("llama_decode failed")
        rows = len(tokens) - first
        logits = llama_cpp.llama_get_logits(self.context)
        pointer = ctypes.cast(logits, ctypes.POINTER(ctypes.c_float))
        return np.ctypeslib.as_array(pointer, shape=(rows, self.size)).copy()


def transformers_scorer(file: Path) -> Scorer:
    model = load_real(file, check=False)

    def score(tokens: list[int]) -> np.ndarray:
        first = len(tokens) // 2
        with torch.no_grad():
            keep = len(tokens) - first
            output = model(torch.tensor([tokens]), logits_to_keep=keep)
        return output.logits[0].numpy()

    return score


def perplexity(score: Scorer, tokens: list[int], context: int, bos: int | None) -> dict[str, Any]:
    """exp(mean) over all chunks, and the mean of each chunk."""
    means: list[float] = []
    for start in range(0, len(tokens) - context + 1, context):
        chunk = tokens[start : start + context]
        if bos is not None:
            chunk[0] = bos
        logits = score(chunk)[:-1].astype(np.float64)  # the last one has no successor
        targets = np.array(chunk[context // 2 + 1 :])
        top = logits.max(axis=1)
        log_sum = top + np.log(np.exp(logits - top[:, None]).sum(axis=1))
        losses = log_sum - logits[np.arange(len(targets)), targets]
        means.append(float(losses.mean()))
    return {
        "perplexity": round(math.exp(sum(means) / len(means)), 6),
        "chunk_nll": [round(value, 6) for value in means],
    }


def main() -> None:
    folder = cache_folder()
    text = (HERE / "text.txt").read_bytes()
    path = HERE / "perplexity.json"
    record: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    record |= {"text": "text.txt", "llama_cpp_python": llama_cpp.__version__}
    for name in sys.argv[1:] or list(REAL):
        file_name, _ = REAL[name]
        peer = LlamaCpp(folder / file_name)
        tokens = peer.tokenize(text)
        entry: dict[str, Any] = {"file": file_name, "tokens": len(tokens)}
        for backend, score, contexts in (
            ("llama_cpp", peer.score, CONTEXTS),
            ("transformers_f32", transformers_scorer(folder / file_name), CONTEXTS[:1]),
        ):
            entry[backend] = {
                str(context): perplexity(score, tokens, context, peer.bos()) for context in contexts
            }
            print(name, backend, {k: v["perplexity"] for k, v in entry[backend].items()})
        record[name] = entry
        path.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
