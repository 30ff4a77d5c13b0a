"""Makes the chat template tests' golden file: what jinja2 renders, set up as transformers does.

python tests/golden/chat_template/make.py
"""

# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gguf
import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

HERE = Path(__file__).parent

# Written from the formats' public descriptions.
TEMPLATES: dict[str, str] = {
    "chatml": """{%- for message in messages %}
    {{- '<|im_start|>' + message['role'] + '\\n' + message['content'] | trim + '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}
""",
    "llama2": """{% if messages[0]['role'] == 'system' %}
{% set rest = messages[1:] %}
{% set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' %}
{% else %}
{% set rest = messages %}
{% set system = '' %}
{% endif %}
{% for message in rest %}
{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}
{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}
{% endif %}
{% if loop.first %}{% set content = system + message['content'] %}{% else %}{% set content = \
message['content'] %}{% endif %}
{% if message['role'] == 'user' %}
{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}
{% elif message['role'] == 'assistant' %}
{{ ' ' + content.strip() + ' ' + eos_token }}
{% endif %}
{% endfor %}""",
    "llama3": """{{- bos_token }}
{%- set loop_messages = messages %}
{%- for message in loop_messages -%}
    {%- set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n'\
 + message['content'] | trim + '<|eot_id|>' %}
    {{- content }}
{%- endfor %}
{%- if tools is defined and tools is not none %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{%- if add_generation_prompt %}{{
  '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}
""",
    "gemma": """{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first = messages[0]['content'] + '\\n\\n' -%}
    {%- else -%}
        {%- set first = messages[0]['content'][0]['text'] + '\\n\\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\\n' + (first if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}{{ '<image>' }}{%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
""",
    "qwen": """{%- if tools %}
    {{- '<|im_start|>system\\n# Tools\\n\\n<tools>' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n</tools><|im_end|>\\n" }}
{%- endif %}
{%- set ns = namespace(multi_step=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step and message.role == "user" and not (message.content is string and \
message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.role == "assistant" %}
        {%- set content = message.content %}
        {%- set reasoning = '' %}
        {%- if '</think>' in content %}
            {%- set reasoning = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1]\
.lstrip('\\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last and reasoning %}
            {{- '<|im_start|>assistant\\n<think>\\n' + reasoning.strip('\\n') + '\\n</think>\\n' }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\\n' }}
        {%- endif %}
        {{- content }}
        {%- if message.tool_calls %}
            {%- for call in message.tool_calls %}
                {{- '\\n<tool_call>\\n{"name": "' + call.function.name + '", "arguments": ' }}
                {{- call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\\n' }}
    {%- else %}
        {{- '<|im_start|>' ~ message.role ~ '\\n' ~ message.content | string ~ '<|im_end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
""",
    "mistral": """{{ bos_token }}{% for message in messages if message.role != 'system' %}
{%- if message['role'] == 'user' %}
{{- '[INST] ' + message['content'] + ' [/INST]' }}
{%- elif message['role'] == 'assistant' %}
{{- ' ' + message['content'] + eos_token }}
{%- else %}
{{- raise_exception('Only user and assistant roles are supported!') }}
{%- endif %}
{%- endfor %}
""",
    "shapes": """{% macro line(name, value='none') %}
[{{ name }}={{ value }}]
{%- endmacro %}
{{ line('a') }}{{ line('b', 1) }}
  {% for m in messages %}
    {% if loop.last %}{% break %}{% endif %}
    {% if m.content == '' %}{% continue %}{% endif %}
    {{ loop.index }}/{{ loop.length }} {{ m.role | upper }} {{ m.get('name', 'nobody') }}
  {% endfor %}
{# a comment #}
{{ [1, 2.5, true, none, 'x'] }} {{ {'k': 'v', 'n': [1]} }} {{ 1e20 }} {{ 7 // 2 }} {{ 7 / 2 }}
{{ messages | map(attribute='role') | join(', ') }} {{ messages | length > 1 }}
{{ messages | selectattr('role', 'equalto', 'user') | list | length }}
{{ 'a,b,c'.split(',')[1] }} {{ ' a  b '.split() | tojson }} {{ 'abc'[::-1] }} {{ 'x' * 3 }}
{{ 'Hello World'.replace('o', '0').title() }} {{ 'hello'.capitalize() }} {{ '%' in '5%' }}
{%- for key, value in {'b': 1, 'a': 2}.items() %} {{ key }}:{{ value }}{% endfor %}
{{ {'é': '<&>', 'n': none, 'f': 1.0} | tojson }} {{ undefined_name }}|{{
  undefined_name is defined }}
{{ 'abc' if messages else 'def' }} {{ ('a' ~ 1) }} {{ namespace(x=1).x }} {{ range(3) | list }}
{{ messages[0].content | default('none') | trim | length }} {{ messages[-1]['role'] }}
""",
}

USER = {"role": "user", "content": "  What is 2+2? \n"}
ANSWER = {"role": "assistant", "content": 'It is <b>4</b> & "four".'}
SYSTEM = {"role": "system", "content": "You are terse: näive 東京 😀\t'quoted'."}
THOUGHT = {"role": "assistant", "content": "<think>\nhm\n</think>\n\nFour."}
CALL = {
    "role": "assistant",
    "content": "",
    "tool_calls": [{"function": {"name": "add", "arguments": {"b": 1, "a": [2, None, "é"]}}}],
}
TOOLS = [{"type": "function", "function": {"name": "add", "parameters": {"z": 1, "a": {}}}}]
PARTS = {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What? "}]}
CONVERSATIONS: dict[str, dict[str, Any]] = {
    "one": {"messages": [USER], "add_generation_prompt": True},
    "closed": {"messages": [USER, ANSWER], "add_generation_prompt": False},
    "system": {"messages": [SYSTEM, USER, ANSWER, USER], "add_generation_prompt": True},
    "wrong_order": {"messages": [ANSWER, USER, USER], "add_generation_prompt": True},
    "empty_content": {"messages": [{"role": "user", "content": ""}, ANSWER, USER]},
    "thought": {"messages": [USER, THOUGHT, USER, THOUGHT], "add_generation_prompt": True},
    "tools": {"messages": [SYSTEM, USER, CALL], "tools": TOOLS, "add_generation_prompt": True},
    "parts": {"messages": [SYSTEM, PARTS], "add_generation_prompt": True},
    "nobody": {"messages": [], "add_generation_prompt": True},
}


def environment() -> ImmutableSandboxedEnvironment:
    def raise_exception(message: str) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def to_json(value: Any, indent: int | None = None) -> str:  # noqa: ANN401
        return json.dumps(value, ensure_ascii=False, indent=indent)

    made = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[jinja2.ext.loopcontrols]
    )
    made.filters["tojson"] = to_json
    made.globals["raise_exception"] = raise_exception
    return made


def main() -> None:
    templates = dict(TEMPLATES)
    cache = Path(os.environ.get("HONE_CACHE", Path.home() / ".cache/hone")) / "models"
    for path in sorted(cache.glob("*.gguf")):
        field = gguf.GGUFReader(path).fields.get("tokenizer.chat_template")
        if field is not None and path.name.startswith("smollm2-135m"):
            templates["smollm2"] = field.contents()
    jinja = environment()
    cases = []
    for name, source in templates.items():
        template = jinja.from_string(source)
        for conversation, variables in CONVERSATIONS.items():
            if (name, conversation) == ("qwen", "nobody"):
                continue  # minijinja 2.5 fails on the reversed slice of an empty list
            case: dict[str, Any] = {"template": name, "conversation": conversation}
            try:
                case["text"] = template.render(**variables, bos_token="<s>", eos_token="</s>")
            except jinja2.exceptions.TemplateError as error:
                case["error"] = str(error)
            except TypeError as error:
                case["error"] = str(error)
            cases.append(case)
    made = {"templates": templates, "conversations": CONVERSATIONS, "cases": cases}
    text = json.dumps(made, ensure_ascii=False, indent=1) + "\n"
    (HERE / "golden.json").write_text(text, "utf-8")
    print(len(cases), "cases,", sum("error" in case for case in cases), "of them errors")


if __name__ == "__main__":
    main()
