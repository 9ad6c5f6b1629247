"""A tiny Llama in a GGUF file, as llama.cpp's tools write it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HIDDEN, INNER, HEADS, KEY_VALUE_HEADS, LAYERS = 32, 64, 4, 2, 2
TOKENS = ["<unk>", "<eos>", "Ġ", "Ċ", *map(chr, range(33, 127)), "ab"]
CHAT = (
    "{% for m in messages %}[{{ m.role }}]{{ m.content }}<eos>{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)


def write_tiny_gguf(
    path: Path, *, chat: str | None = CHAT, kind: str = "Q8_0", license: str | None = "mit"
) -> dict[str, NDArray[np.float32]]:
    """Write the file, and return its weights by name as llama.cpp would dequantise them.

    Args:
        path: Where to write.
        chat: The chat template, if it has one.
        kind: The quantisation of the matrices; `F32` for none.
        license: The licence, if it names one.
    """
    from gguf import GGMLQuantizationType, GGUFWriter
    from gguf.quants import dequantize, quantize

    writer: Any = GGUFWriter(str(path), "llama")
    writer.add_name("Tiny")
    if license is not None:
        writer.add_license(license)
    writer.add_context_length(128)
    writer.add_embedding_length(HIDDEN)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_VALUE_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_count(HIDDEN // HEADS)
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("smollm")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["a b"])
    writer.add_token_types([3, 3, *[1] * (len(TOKENS) - 2)])  # 3 is a control token, 1 a usual one
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(1)
    writer.add_pad_token_id(1)
    if chat is not None:
        writer.add_chat_template(chat)
    generator, known = np.random.default_rng(0), {}
    matrix = getattr(GGMLQuantizationType, kind)
    for name, shape in _shapes().items():
        value = generator.normal(0, 0.2, shape).astype(np.float32)
        if len(shape) == 2 and kind != "F32":
            packed = quantize(value, matrix)
            known[name] = dequantize(packed, matrix)
            writer.add_tensor(name, packed, raw_dtype=matrix)
        else:
            known[name] = value
            writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return known


def _shapes() -> dict[str, tuple[int, ...]]:
    narrow = KEY_VALUE_HEADS * HIDDEN // HEADS
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (len(TOKENS), HIDDEN),
        "output_norm.weight": (HIDDEN,),
        "output.weight": (len(TOKENS), HIDDEN),
    }
    for i in range(LAYERS):
        block: dict[str, tuple[int, ...]] = {
            "attn_norm": (HIDDEN,),
            "ffn_norm": (HIDDEN,),
            "attn_q": (HIDDEN, HIDDEN),
            "attn_k": (narrow, HIDDEN),
            "attn_v": (narrow, HIDDEN),
            "attn_output": (HIDDEN, HIDDEN),
            "ffn_gate": (INNER, HIDDEN),
            "ffn_up": (INNER, HIDDEN),
            "ffn_down": (HIDDEN, INNER),
        }
        shapes |= {f"blk.{i}.{name}.weight": shape for name, shape in block.items()}
    return shapes
