"""Text to tokens: as at generation time, with the right end, and everything that is cut is counted."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from editloop.edits.record import Message
from editloop.errors import ConfigError, ModelError
from editloop.policy.encode import Encoder
from tiny import tiny_tokenizer

CHAT = (Message(role="system", content="Be brief."), Message(role="user", content="Hi"))


def encoder(max_length: int = 100, end_token: str | None = None, **made: Any) -> Encoder:
    return Encoder(tiny_tokenizer(**made), max_length, end_token)


def token(each: Encoder, name: str) -> int:
    return int(each.tokenizer.convert_tokens_to_ids(name))


def test_a_prompt_is_the_chat_templates_own() -> None:
    made = encoder(chat=True)
    for context in ("Write to Ann.", CHAT):
        messages = [{"role": "user", "content": context}] if isinstance(context, str) else None
        messages = messages or [m.model_dump() for m in CHAT]
        expected = made.tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]
        assert made.prompt(context) == tuple(expected)
    # <|system|> B ... . <|end|> <|user|> H i <|end|> <|assistant|>
    assert made.prompt(CHAT)[-4:] == tuple(token(made, t) for t in ("H", "i", "<|end|>", "<|assistant|>"))


def test_the_end_of_a_turn_comes_from_the_template_though_eos_is_another() -> None:
    made = encoder(chat=True)
    assert made.tokenizer.eos_token == "<eos>"
    assert made.end == token(made, "<|end|>")
    assert "from the template" in made.why
    assert made.continuation("ab") == (token(made, "a"), token(made, "b"), made.end)
    assert made.continuation("") == (made.end,)


def test_a_template_that_ends_no_turn_leaves_eos() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}\n{% endfor %}"
    made = Encoder(tokenizer, 100)
    assert made.end == tokenizer.eos_token_id
    assert "the tokenizer's end token" in made.why


def test_without_a_template_the_prompt_is_the_context_and_a_newline() -> None:
    made = encoder()
    assert made.prompt("ab") == tuple(token(made, t) for t in "ab\n")
    assert made.end == token(made, "<eos>")
    text = "system: Be brief.\nuser: Hi\nassistant:\n"
    assert made.prompt(CHAT) == tuple(token(made, t) for t in text)
    assert "no chat template" in made.why


def test_an_end_that_the_tokenizer_puts_after_every_text_is_no_part_of_the_prompt() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = tiny_tokenizer()
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="$A <eos>", special_tokens=[("<eos>", tokenizer.eos_token_id)]
    )
    made = Encoder(tokenizer, 100)
    assert tokenizer("ab")["input_ids"][-1] == made.end
    assert made.prompt("ab") == tuple(token(made, t) for t in "ab\n")
    assert made.continuation("ab")[-2:] == (token(made, "b"), made.end)


def test_an_empty_prompt_still_has_a_token_that_predicts() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert Encoder(tokenizer, 100).prompt("") == (tokenizer.eos_token_id,)


def test_without_a_pad_token_rows_are_filled_with_the_end() -> None:
    assert encoder().pad == 1
    assert encoder(pad=False).pad == encoder().end


def test_without_an_end_token_the_error_names_the_flag() -> None:
    with pytest.raises(ModelError, match="--end-token") as caught:
        encoder(eos=False)
    assert "\n" not in str(caught.value)
    assert encoder(eos=False, end_token="<|end|>").end == token(encoder(), "<|end|>")


def test_an_end_token_that_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no such token: '<stop>'.*--end-token"):
        encoder(end_token="<stop>")
    # Not one token, though it can be spelt.
    with pytest.raises(ConfigError, match="no such token: 'ab'"):
        encoder(end_token="ab")


def test_a_tree_within_the_limit_is_whole() -> None:
    made, counts = encoder(max_length=8), Counter[str]()
    tree = made.tree("abc", ["xyz", "xy"], counts)  # a b c \n x y z <eos>: 8 tokens
    assert tree is not None
    assert tree.context == made.prompt("abc")
    assert tree.continuations == (made.continuation("xyz"), made.continuation("xy"))
    assert not +counts


def test_a_continuation_that_is_cut_is_counted_and_does_not_end() -> None:
    made, counts = encoder(max_length=8), Counter[str]()
    tree = made.tree("abc", ["wxyz", "wxyzwxyz", "w"], counts)  # room for 4 tokens
    assert tree is not None
    assert tree.continuations == (
        tuple(token(made, t) for t in "wxyz"),
        tuple(token(made, t) for t in "wxyz"),
        made.continuation("w"),
    )
    assert counts == {"continuation cut": 1}  # one row, whatever the number of its continuations


def test_a_context_that_leaves_no_room_is_counted() -> None:
    made, counts = encoder(max_length=8), Counter[str]()
    assert made.tree("abcdefg", ["x"], counts) is None  # 8 tokens
    assert counts == {"context too long": 1}
    tree = made.tree("abcdef", [""], counts)  # 7 tokens leave room for one
    assert tree is not None
    assert tree.continuations == ((made.end,),)
    assert +counts == {"context too long": 1}


def test_a_context_that_the_template_refuses_is_counted_and_reported() -> None:
    made, counts = encoder(chat=True), Counter[str]()
    context = (Message(role="tool", content="42"),)
    assert made.tree(context, ["x"], counts) is None
    assert counts == {"refused by the chat template": 1}
    with pytest.raises(ModelError, match="no tools here"):
        made.prompt(context)


def test_a_template_that_refuses_everything_is_no_crash() -> None:
    tokenizer = tiny_tokenizer()
    tokenizer.chat_template = "{{ raise_exception('out of order') }}"
    made = Encoder(tokenizer, 100)
    assert made.end == tokenizer.eos_token_id
    assert made.tree("a", ["b"]) is None


def test_decoding_gives_the_text_back_without_special_tokens() -> None:
    made = encoder(chat=True)
    text = "Dear Ann,\n\nsee you at 5 , then."
    assert made.decode(made.continuation(text)) == text
    assert made.tokenize(["ab", ""]) == [[token(made, "a"), token(made, "b")], []]
