"""Golden scores of choices: transformers' in float32 on the quantized file's weights, dequantized.

    python make.py   # the GGUF file is the one in hone's cache

Writes eval.json: for each question, raw and in the chat template, the sum of the log probabilities
of each choice's tokens. Every choice is run on its own, prompt and all, so that nothing is shared.
The tokens of a choice are those of prompt and choice together, behind the longest beginning that
all choices of the question have in common with the prompt alone.
"""
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoTokenizer, PreTrainedTokenizerBase

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "models"))
from make import REAL, cache_folder, load_real  # noqa: E402

NAME = "smollm2-135m-q4_1"

QUESTIONS: list[dict[str, Any]] = [
    {"prompt": "The capital of France is", "choices": [" Paris", " Rome", " Berlin", " Madrid"]},
    {
        "prompt": "Water freezes at zero degrees",
        "choices": [" Celsius.", " Fahrenheit.", " north."],
    },
    # One token and many.
    {
        "prompt": "The opposite of hot is",
        "choices": [
            " cold",
            " a very long walk along the coast in the early morning",
            " warm, too",
        ],
    },
    # The border lies within a token: the prompt ends with a space, or in a word.
    {"prompt": "Two plus two is ", "choices": ["four", "five", "twenty-two"]},
    {"prompt": "She opened the win", "choices": ["dow", "e", "ter coat"]},
    # Text beyond ASCII.
    {"prompt": "«Guten Morgen» heißt auf Französisch", "choices": [" «bonjour»", " «bonne nuit»"]},
    # A prompt of several pages of the cache, which a choice does not fill.
    {
        "prompt": "A farmer has hens, ducks and geese. Every morning the hens lay nine eggs, the "
        "ducks lay four and the geese lay two. On Monday a fox came and frightened the geese, so "
        "that they laid nothing at all, and the farmer found eggs of hens and ducks alone. "
        "Question: how many eggs did the farmer find on Monday? Answer:",
        "choices": [" thirteen", " fifteen", " nine", " eleven eggs"],
    },
    {
        "prompt": "it 's a charming and often affecting journey . It was",
        "choices": [" terrible", " great"],
    },
]


def log_probability(model: torch.nn.Module, tokens: list[int], shared: int) -> float:
    """The sum over tokens[shared:]."""
    with torch.no_grad():
        logits = model(torch.tensor([tokens])).logits[0].double()
    scores = torch.log_softmax(logits, dim=-1)
    return float(sum(scores[i - 1, tokens[i]] for i in range(shared, len(tokens))))


def score(
    model: torch.nn.Module, tokenizer: PreTrainedTokenizerBase, prompt: str, choices: list[str]
) -> dict[str, Any]:
    encoded = [tokenizer.encode(prompt + choice, add_special_tokens=False) for choice in choices]
    alone = tokenizer.encode(prompt, add_special_tokens=False)
    shared = len(alone)
    for tokens in encoded:
        same = 0
        while same < min(shared, len(tokens)) and tokens[same] == alone[same]:
            same += 1
        shared = same
    return {
        "shared": shared,
        "tokens": [len(tokens) - shared for tokens in encoded],
        "log_probability": [round(log_probability(model, tokens, shared), 6) for tokens in encoded],
    }


def main() -> None:
    file = cache_folder() / REAL[NAME][0]
    model = load_real(file, check=False)
    tokenizer = AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    record: dict[str, Any] = {
        "file": file.name,
        "transformers": transformers.__version__,
        "questions": [],
    }
    for question in QUESTIONS:
        prompt, choices = question["prompt"], question["choices"]
        chat = tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
        )
        record["questions"].append(
            question
            | {
                "raw": score(model, tokenizer, prompt, choices),
                "chat": score(model, tokenizer, chat, [choice.lstrip() for choice in choices]),
            }
        )
        print(prompt[:40], record["questions"][-1]["raw"], record["questions"][-1]["chat"])
    text = json.dumps(record, indent=1, ensure_ascii=False)
    (HERE / "eval.json").write_text(text + "\n", "utf-8")


if __name__ == "__main__":
    main()
