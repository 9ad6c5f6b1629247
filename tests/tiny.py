"""Tiny random models and their tokenizers, of many families."""

from __future__ import annotations

from typing import Any

VOCABULARY = 160  # what every tiny model is made for; the tokenizer has fewer tokens
ALPHABET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 .,;:!?'-\n<>|_[]/"
CHAT = (
    "{% for m in messages %}{% if m.role == 'tool' %}{{ raise_exception('no tools here') }}{% endif %}"
    "<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def tiny_tokenizer(*, chat: bool = False, pad: bool = True, eos: bool = True) -> Any:
    """A tokenizer of one token a character, with or without what real ones lack now and then."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    special = ["<unk>", "<pad>", "<eos>", "<|end|>", "<|user|>", "<|assistant|>", "<|system|>"]
    vocabulary = {token: i for i, token in enumerate([*special, *ALPHABET])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        unk_token="<unk>",
        **({"pad_token": "<pad>"} if pad else {}),
        **({"eos_token": "<eos>"} if eos else {}),
        additional_special_tokens=["<|end|>", "<|user|>", "<|assistant|>", "<|system|>"],
        clean_up_tokenization_spaces=False,
    )
    if chat:
        wrapped.chat_template = CHAT
    return wrapped


SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 1,
    "eos_token_id": 2,
    "bos_token_id": None,
}
GPT2 = {"vocab_size": VOCABULARY, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SIZES | {"num_key_value_heads": 1},
    "qwen3": SIZES | {"num_key_value_heads": 1, "head_dim": 16},
    "gpt2": GPT2 | {"bos_token_id": 2, "eos_token_id": 2},
    "gemma": SIZES | {"num_key_value_heads": 1, "head_dim": 16},
    "gemma2": SIZES | {"num_key_value_heads": 1, "head_dim": 16, "sliding_window": 6},
    "gemma3_text": SIZES
    | {
        "num_key_value_heads": 1,
        "head_dim": 16,
        "sliding_window": 6,
        "layer_types": ["sliding_attention", "full_attention"],
    },
    "cohere": SIZES | {"num_key_value_heads": 1},
    "granite": SIZES | {"num_key_value_heads": 1},
    "mistral": SIZES | {"num_key_value_heads": 1, "sliding_window": 6},
    "mamba": {"vocab_size": VOCABULARY, "hidden_size": 32, "num_hidden_layers": 2, "state_size": 4},
    "bloom": {"vocab_size": VOCABULARY, "hidden_size": 32, "n_layer": 2, "n_head": 2},
    "rwkv": {
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "attention_hidden_size": 32,
        "num_hidden_layers": 2,
    },
    "mpt": {"vocab_size": VOCABULARY, "d_model": 32, "n_layers": 2, "n_heads": 2},
}


def tiny_model(family: str = "llama", *, seed: int = 0, attention: str | None = None, **changes: Any) -> Any:
    """A random model of a family, its weights spread so widely that log-probabilities differ visibly."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(family, **(FAMILIES[family] | changes))
    options = {"attn_implementation": attention} if attention else {}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(config, **options).eval()
        with torch.no_grad():
            for weight in model.parameters():
                weight.add_(torch.randn_like(weight) * 0.15)
    return model
