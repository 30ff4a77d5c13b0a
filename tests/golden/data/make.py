"""Makes the golden file of the training data's tests: token ids and masks that transformers gives.

The tokenizers come out of the two GGUF files in hone's cache, the mask from the chat templates with
`generation` marks around what the assistant says, its stop token included.

    python tests/golden/data/make.py
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from pathlib import Path

from transformers import AutoTokenizer

HERE = Path(__file__).parent
CACHE = Path(os.environ.get("HONE_CACHE", Path.home() / ".cache" / "hone")) / "models"
FILES = {"smollm2": "smollm2-135m-instruct-q4_1.gguf", "gemma": "gemma-3-270m-q4_k_m.gguf"}

SMOLLM2 = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face"
    "<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n'}}"
    "{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ message['content'] + '<|im_end|>' }}{% endgeneration %}"
    "{% else %}{{ message['content'] + '<|im_end|>' }}{% endif %}{{ '\n' }}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set first = messages[0]['content'] + '\n\n' %}{% set rest = messages[1:] %}"
    "{% else %}{% set first = '' %}{% set rest = messages %}{% endif %}"
    "{% for message in rest %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + (first if loop.first else '') }}"
    "{% if message['role'] == 'assistant' %}{% generation %}"
    "{{ (message['content'] | trim) + '<end_of_turn>' }}{% endgeneration %}"
    "{% else %}{{ (message['content'] | trim) + '<end_of_turn>' }}{% endif %}"
    "{{ '\n' }}{% endfor %}"
)

CONVERSATIONS = [
    [("user", "What is hone?"), ("assistant", "hone is a native C++20 program.")],
    [("system", "Be brief."), ("user", "12 + 345?"), ("assistant", "357")],
    [
        ("user", "Say hello in French."),
        ("assistant", "Bonjour !"),
        ("user", "And in Japanese?"),
        ("assistant", "こんにちは 👋"),
    ],
    [
        ("user", "Write a loop.\n\n```python\nx = [1, 2]\n```"),
        ("assistant", "```python\nfor i in x:\n    print(i)\n```\n\nIt prints 1 and 2."),
        ("user", "  Thanks   "),
    ],
    [("user", "naïve café, Ångström, don't"), ("assistant", "1,234.5 % of `a_b`\ttab")],
]


def examples(name: str) -> list[dict[str, object]]:
    """Ids and mask of every conversation."""
    tokenizer = AutoTokenizer.from_pretrained(str(CACHE), gguf_file=FILES[name])
    tokenizer.chat_template = {"smollm2": SMOLLM2, "gemma": GEMMA}[name]
    found: list[dict[str, object]] = []
    for conversation in CONVERSATIONS:
        messages = [{"role": role, "content": content} for role, content in conversation]
        given = tokenizer.apply_chat_template(
            messages, return_dict=True, return_assistant_tokens_mask=True
        )
        text = tokenizer.apply_chat_template(messages, tokenize=False)
        found.append(
            {
                "messages": messages,
                "text": text,
                "ids": given["input_ids"],
                "mask": given["assistant_masks"],
            }
        )
    return found


def main() -> None:
    golden = {name: examples(name) for name in FILES}
    text = json.dumps(golden, ensure_ascii=False, separators=(",", ":"))
    (HERE / "golden.json").write_text(text + "\n", "utf-8")
    print(f"{len(text)} bytes")


if __name__ == "__main__":
    main()
