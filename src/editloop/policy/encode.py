"""Turn texts into tokens in the same way when a policy is trained, scored and sampled.

A prompt is made by the chat template, with the generation prompt; without a template it is the context and a
newline. A continuation is the tokens of its text and the end-of-turn token, which is the one that the
template puts after an assistant's turn. Whatever is cut or left out is counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from jinja2 import TemplateError

from editloop.edits import Context, ContextLike, as_context
from editloop.errors import ConfigError, ModelError
from editloop.policy.tree import ContextTree

__all__ = ["Encoder"]

_MARK = "\u2063here\u2063"
"""Stands for an assistant's words when the template is asked what follows them. Because of its
invisible separators, it is part of no template."""


class Encoder:
    """Encodes contexts and continuations for one tokenizer.

    Args:
        tokenizer: A `transformers` tokenizer.
        max_length: Limit in tokens of a context and a continuation together.
        end_token: The token that ends a turn; by default the one that the chat template uses, else the
            tokenizer's end token.
        more_ends: Ids of further tokens at which the model may end a response.

    Attributes:
        end: Id of the end-of-turn token, which is the one that is learned.
        ends: Ids of the tokens at which a response ends; the first is `end`. If an end token is asked for, it
            is the only one.
        end_token: The end-of-turn token as text.
        pad: Id of the padding token.
        why: How prompts are made and turns end, in one line.

    Raises:
        ConfigError: `end_token` is not in the vocabulary.
        ModelError: The tokenizer has no end token.
    """

    def __init__(
        self, tokenizer: Any, max_length: int, end_token: str | None = None, more_ends: Sequence[int] = ()
    ) -> None:
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.has_template = tokenizer.chat_template is not None
        form = "chat template" if self.has_template else "no chat template: context and a newline"
        self.end, end_why = self._find_end(end_token)
        more = more_ends if end_token is None else ()
        self.ends = (self.end, *(each for each in more if each != self.end))
        self.end_token: str = tokenizer.convert_ids_to_tokens(self.end)
        self.pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else self.end
        self.why = f"prompt by {form}, turns end with {self.end_token!r} ({end_why})"

    def _find_end(self, end_token: str | None) -> tuple[int, str]:
        if end_token is not None:
            token_id = self.tokenizer.get_vocab().get(end_token)
            if token_id is None:
                raise ConfigError("the tokenizer has no such token", seen=end_token, do="change --end-token")
            return int(token_id), "as asked"
        if self.has_template:
            turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": _MARK}]
            try:
                after = self.tokenizer.apply_chat_template(turns, tokenize=False).partition(_MARK)[2]
            except TemplateError:  # contexts that such a template refuses are counted when they are encoded
                after = ""
            # What follows an assistant's turn may begin with a newline or the like; the first special token
            # is the one that ends the turn.
            special = set(self.tokenizer.all_special_ids) | set(self.tokenizer.added_tokens_decoder)
            for token_id in self.tokenizer(after, add_special_tokens=False)["input_ids"]:
                if token_id in special:
                    return int(token_id), "from the template"
        if self.tokenizer.eos_token_id is None:
            raise ModelError("the tokenizer has no end token", do="name one of its tokens by --end-token")
        return int(self.tokenizer.eos_token_id), "the tokenizer's end token"

    def prompt(self, context: ContextLike) -> tuple[int, ...]:
        """The tokens of the prompt, exactly as at generation time; at least one.

        Raises:
            ConfigError: The context is neither text nor a chat.
            ModelError: The chat template refuses the messages, for example because of an unknown role.
        """
        context = as_context(context)
        if self.has_template:
            try:
                text = self.tokenizer.apply_chat_template(
                    _messages(context), add_generation_prompt=True, tokenize=False
                )
            except TemplateError as error:
                raise ModelError(f"the chat template refuses the context: {error}", seen=context) from error
            # The template writes the special tokens itself; the tokenizer would add a second BOS.
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        else:
            if not isinstance(context, str):
                context = "\n".join(f"{m.role}: {m.content}" for m in context) + "\nassistant:"
            ids = self.tokenizer(context + "\n")["input_ids"]
            if ids and ids[-1] == self.tokenizer.eos_token_id:  # some tokenizers end every text with it
                ids = ids[:-1]
        # An empty prompt predicts nothing: a tree needs a token before its first continuation.
        start = self.tokenizer.bos_token_id if self.tokenizer.bos_token_id is not None else self.end
        return tuple(ids) or (start,)

    def continuation(self, text: str) -> tuple[int, ...]:
        """The tokens of a response or an edit, with the end-of-turn token."""
        # Tokenised apart from the context, as when a policy writes: its first token follows a finished
        # prompt, and is never merged with the prompt's last characters.
        return (*self.tokenizer(text, add_special_tokens=False)["input_ids"], self.end)

    def tree(
        self, context: ContextLike, continuations: Sequence[str], counts: Counter[str] | None = None
    ) -> ContextTree | None:
        """The context tree, cut to `max_length`; None if the context cannot be used.

        A continuation that is cut loses its end-of-turn token, so that a policy does not learn to stop there.

        Args:
            context: A text, or messages, which may be plain dicts.
            continuations: The texts of the continuations.
            counts: Counts trees that were cut or left out: `continuation cut`, `context too long`,
                `refused by the chat template`.
        """
        counts = Counter() if counts is None else counts
        try:
            prompt = self.prompt(context)
        except ModelError:
            counts["refused by the chat template"] += 1
            return None
        room = self.max_length - len(prompt)
        if room < 1:
            counts["context too long"] += 1
            return None
        encoded = [self.continuation(text) for text in continuations]
        counts["continuation cut"] += any(len(ids) > room for ids in encoded)
        return ContextTree(prompt, tuple(ids[:room] for ids in encoded))

    def tokenize(self, texts: list[str]) -> list[list[int]]:
        """The tokens of plain texts, for costs that count tokens."""
        return [list(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def decode(self, ids: Sequence[int]) -> str:
        """The text of generated tokens, without special tokens."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text


def _messages(context: Context) -> list[dict[str, str]]:
    if isinstance(context, str):
        return [{"role": "user", "content": context}]
    return [{"role": m.role, "content": m.content} for m in context]
