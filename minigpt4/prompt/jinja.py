"""Chat templates in Jinja, the language in which `transformers` and servers keep them: for folders that others read.

What they render is what `templates` writes. A message's content is a text, or a list of parts: texts, and images, each of which
becomes one place. Special texts inside of a text part are broken as `MiniGPT4Processor.plain` breaks them, so that no text
becomes a place or an end.
"""

import re
from collections.abc import Iterable

from .templates import IMAGE, ChatTemplate, TokenizerTemplate

_CONTENT = """\
{%- if message['content'] is string -%}
{%- set said.text = message['content'] -%}
{%- else -%}
{%- set said.text = '' -%}
{%- for part in message['content'] -%}
{%- if not loop.first -%}{%- set said.text = said.text ~ ' ' -%}{%- endif -%}
{%- if part['type'] == 'text' -%}
{%- set said.part = part['text'] -%}
{%- set said.before = '' -%}
{%- for _ in said.part -%}
{%- if said.part != said.before -%}
{%- set said.before = said.part -%}
{%- for mark in marks -%}
{%- set said.part = said.part | replace(mark, mark[0] ~ ' ' ~ mark[1:]) -%}
{%- endfor -%}
{%- endif -%}
{%- endfor -%}
{%- set said.text = said.text ~ said.part -%}
{%- elif part['type'] in ['image', 'image_url'] -%}
{%- set said.text = said.text ~ IMAGE -%}
{%- else -%}
{{- raise_exception('a part of a message is a text or an image, not ' ~ part['type']) -}}
{%- endif -%}
{%- endfor -%}
{%- endif -%}
"""

_NAMED = """\
{{- START -}}
{%- for message in messages -%}
CONTENT\
{%- if message['role'] == 'user' -%}
{{- USER ~ said.text ~ SEP -}}
{%- elif message['role'] == 'assistant' -%}
{{- ASSISTANT ~ said.text ~ END -}}
{%- else -%}
{{- raise_exception("a message is from 'user' or 'assistant', not " ~ message['role']) -}}
{%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{- ASSISTANT -}}
{%- endif -%}
"""

_OWN = """\
{%- set said.messages = [] -%}
{%- for message in messages -%}
CONTENT\
{%- set said.messages = said.messages + [dict(message, content=said.text)] -%}
{%- endfor -%}
{%- set messages = said.messages -%}
"""


def as_jinja(chat: ChatTemplate | TokenizerTemplate, marks: Iterable[str], bos: str = "", extra_bos: bool = False) -> str:
    """A chat format as a Jinja template.

    Args:
        marks: texts that are broken where people write them, the longest first.
        bos: the tokenizer's beginning-of-sequence token.
        extra_bos: begin with one more of them, as `MiniGPT4Processor` does.
    """
    own = isinstance(chat, TokenizerTemplate)
    content = _CONTENT.replace("IMAGE", _quoted(IMAGE))
    body = (_OWN if own else _NAMED).replace("CONTENT", content)
    start = bos if extra_bos else ""
    if isinstance(chat, ChatTemplate):
        opening = chat.system + chat.sep if chat.system else ""
        if chat.add_bos and not (opening or chat.user).startswith(bos):
            start += bos
        words = {"START": start + opening, "USER": chat.user, "ASSISTANT": chat.assistant, "SEP": chat.sep}
        words |= {"END": chat.end + chat.gap}
        body = re.sub("|".join(words), lambda name: _quoted(words[name[0]]), body)
    elif start:
        body += "{{- " + _quoted(start) + " -}}\n"
    listed = ", ".join(_quoted(mark) for mark in marks if len(mark) > 1)
    begin = f"{{%- set marks = [{listed}] -%}}\n{{%- set said = namespace(text='', part='', before='', messages=[]) -%}}\n"
    return begin + body + (chat.jinja if isinstance(chat, TokenizerTemplate) else "")


def _quoted(text: str) -> str:
    return "'" + text.encode("unicode_escape").decode().replace("'", "\\'") + "'"
