"""Load a causal LM in Hugging Face format as a policy, with every automatic choice and its reason."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from editloop.errors import ConfigError, ModelError
from editloop.extras import requires
from editloop.policy.bases import resolve_base
from editloop.policy.device import choose_device, choose_dtype
from editloop.policy.encode import Encoder
from editloop.policy.generation import shipped_ends, shipped_settings
from editloop.policy.memory import check_room, numbers_of
from editloop.policy.model import Policy
from editloop.policy.probe import probe_head, probe_trees
from editloop.policy.progress_bars import downloads_alone

__all__ = ["load_base"]

DEFAULT_LENGTH = 4096
"""The default limit in tokens; the mask of a row grows with its square."""


def load_base(
    base: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str | None = None,
    max_length: int | None = None,
    end_token: str | None = None,
    trust_remote_code: bool = False,
    memory: int | None = None,
) -> Policy:
    """Load a causal LM as a policy.

    Long because every choice is made and named here, in their order.

    Args:
        base: A hub name, a local folder in Hugging Face format, a GGUF file (also one on the hub, as
            `OWNER/REPOSITORY/FILE.gguf`), `smollm2`, or one of the embedded lab's bases: `lab:email`,
            `lab:summary`.
        device: `auto` or a torch device.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        quantize: `4bit` loads the base in NF4 by bitsandbytes; None does not quantise.
        max_length: Limit in tokens of a context and a continuation together; by default 4,096, and never
            above the model's own limit.
        end_token: The token that ends a turn, for models from whose template it cannot be found.
        trust_remote_code: Passed to `transformers`.
        memory: The most memory that may be used, in bytes; by default all that is free.

    Raises:
        ModelError: The folder, its weights or its tokenizer cannot be loaded, or the memory is too small.
        ConfigError: The device, dtype or end token cannot be used, or the lab has no such base.
    """
    resolved = resolve_base(base)
    base = resolved.place
    chosen_device, device_why = choose_device(device)
    chosen_dtype, dtype_why = choose_dtype(chosen_device, dtype, lambda: _numbers(base, trust_remote_code))
    options: dict[str, Any] = {"dtype": chosen_dtype, "trust_remote_code": trust_remote_code}
    if quantize is None:
        check_room(base, chosen_dtype, chosen_device, memory)
    tokenizer, model = _tokenizer_and_model(base, chosen_device, quantize, options)
    length, length_why = _choose_length(model, max_length)
    encoder, contradictions = _encoder(tokenizer, model, length, end_token, resolved.name)
    shares, share_why = probe_trees(model)
    linear_head = probe_head(model)
    generation, generation_why = shipped_settings(model)
    precision = str(chosen_dtype).removeprefix("torch.")
    decisions = [
        *([resolved.note] if resolved.note else []),
        f"device {chosen_device} ({device_why}), dtype {precision} ({dtype_why})",
        f"length {length} tokens ({length_why})",
        encoder.why,
        f"{'context trees' if shares else 'plain sequences'} ({share_why})",
        *contradictions,
        *([] if linear_head else ["all logits of a batch at once (they are scaled or capped)"]),
        f"responses at {generation} ({generation_why})",
    ]
    return Policy(
        model,
        encoder,
        resolved.name,
        _fingerprint(model),
        shares,
        decisions,
        quantize=quantize,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
        generation=generation,
        linear_head=linear_head,
    )


def _numbers(base: str | Path, trust_remote_code: bool) -> int:
    """How many numbers the weights of a base are; 0 if that cannot be found out."""
    from transformers import AutoConfig, AutoModelForCausalLM

    if known := numbers_of(base):
        return known
    try:  # of a hub name, or of weights in another format, by the shapes alone
        with downloads_alone(), torch.device("meta"):
            config = AutoConfig.from_pretrained(str(base), trust_remote_code=trust_remote_code)
            model = AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code)
        return int(model.num_parameters())
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, AttributeError, TypeError):
        return 0  # what is wrong with the base is said when it is loaded


def _tokenizer_and_model(
    base: str | Path, device: torch.device, quantize: str | None, options: dict[str, Any]
) -> tuple[Any, Any]:
    """The tokenizer and the model, on its device and in evaluation mode."""
    if quantize is not None:
        options |= _quantization(quantize, device, options["dtype"])
    _check_folder(base)
    tokenizer, model = _from_pretrained(str(base), options)
    model = model.to(device) if quantize is None else _prepare_quantized(model)
    return tokenizer, model.eval()


def _from_pretrained(source: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """The tokenizer and the model."""
    from transformers import AutoTokenizer

    try:
        with downloads_alone():
            tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=options["trust_remote_code"])
            return tokenizer, _load_model(source, options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"the base cannot be loaded: {reason}", seen=source, do="check --base") from error


def _load_model(source: str, options: dict[str, Any]) -> Any:
    """The model with SDPA attention, or with eager attention where its family has no other.

    Raises:
        ModelError: Weights are missing. `transformers` would only warn, and initialise them at random.
    """
    from transformers import AutoModelForCausalLM

    options = {"attn_implementation": "sdpa", "output_loading_info": True} | options
    try:
        model, info = AutoModelForCausalLM.from_pretrained(source, **options)
    except ValueError as error:
        if "scaled_dot_product" not in str(error):
            raise
        eager = options | {"attn_implementation": "eager"}
        model, info = AutoModelForCausalLM.from_pretrained(source, **eager)
    if missing := sorted(info["missing_keys"]):
        raise ModelError(
            f"the base lacks {len(missing)} weights, {missing[0]} among them", seen=source, do="check --base"
        )
    return model


def _check_folder(base: str | Path) -> None:
    """Refuse a folder without a configuration or weights before anything is loaded.

    Raises:
        ModelError: The folder is missing, or it is not a model's.
    """
    folder = Path(base)
    if not folder.exists():
        # A hub name has at most one slash. What looks like a path is not asked of the hub, whose error
        # would be about authentication.
        looks_local = (
            isinstance(base, Path) or str(base).startswith((".", "/", "~")) or str(base).count("/") > 1
        )
        if looks_local:
            raise ModelError("no such base folder", seen=str(base), do="check --base")
        return
    if not folder.is_dir() or not (folder / "config.json").is_file():
        raise ModelError("the base is not a model folder: no config.json", seen=str(base), do="check --base")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("*.bin")):
        raise ModelError("the base folder has no weights", seen=str(base), do="expected *.safetensors in it")


def _quantization(quantize: str, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    """The options by which `from_pretrained` quantises a base.

    Raises:
        ConfigError: The kind of quantisation is unknown.
    """
    if quantize != "4bit":
        raise ConfigError("unknown quantisation", seen=quantize, do="choose --quantize 4bit")
    requires("quantized")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": config, "device_map": {"": device}}


def _prepare_quantized(model: Any) -> Any:
    """A quantised base, prepared to carry adapters."""
    from peft import prepare_model_for_kbit_training

    # This casts whatever is not quantised to float32. Done when an adapter is attached, as usual, it would
    # change the base between the reference pass and the training; done here, both see the same base.
    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def _encoder(
    tokenizer: Any, model: Any, length: int, end_token: str | None, base: str
) -> tuple[Encoder, list[str]]:
    """The encoder, and what is made of end tokens in the base's settings that its tokenizer contradicts.

    Raises:
        ConfigError: The end token that is asked for is not in the vocabulary.
        ModelError: Tokenizer and model do not belong together.
    """
    ends, not_ends = shipped_ends(model, tokenizer)
    encoder = Encoder(tokenizer, length, end_token, ends)
    _check_vocabulary(encoder, model, base)
    said = []
    if not_ends:
        ids = ", ".join(map(str, not_ends))
        said.append(
            f"no response ends at {ids}, as the base's settings have it: no special token has that id"
        )
    if len(encoder.ends) > 1 and encoder.end not in ends:
        others = ", ".join(map(repr, tokenizer.convert_ids_to_tokens(list(encoder.ends[1:]))))
        why = f"by the base's settings, which lack {encoder.end_token!r}"
        said.append(f"responses end at {others} as well ({why})")
    return encoder, said


def _check_vocabulary(encoder: Encoder, model: Any, base: str) -> None:
    """Refuse a tokenizer whose prompts or end token the model does not know; pad with a token that it knows.

    Tokens that no prompt has may be missing: some tokenizers have one for images that their text models lack.

    Raises:
        ModelError: Tokenizer and model do not belong together.
    """
    rows = model.get_input_embeddings().weight.shape[0]
    needed = [encoder.end]
    with suppress(ModelError):  # contexts that the template refuses are counted when they are encoded
        needed += encoder.prompt("?")
    if (last := max(needed)) >= rows:
        token = encoder.tokenizer.convert_ids_to_tokens(last)
        raise ModelError(
            f"the model has no token {token!r} of its tokenizer: number {last} of {rows}",
            seen=base,
            do="check that its tokenizer and its weights belong together",
        )
    if encoder.pad >= rows:
        encoder.pad = encoder.end


def _choose_length(model: Any, max_length: int | None) -> tuple[int, str]:
    """The limit of a context and a continuation in tokens, and why."""
    config = model.config.get_text_config()
    found = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    limit = int(found) if found else None  # some families have no limit
    length = min(max_length or DEFAULT_LENGTH, limit or DEFAULT_LENGTH)
    # The length is looked up among the numbers that could have decided it; if it is neither, the default did.
    why = {max_length: "as asked", limit: "the limit of the model"}
    return length, why.get(length, "change it by --max-length")


def _fingerprint(model: Any) -> str:
    """Hash of the configuration and the weights: a base whose weights were changed is another base.

    The same base has the same fingerprint in every precision, on every device and under every version of
    `transformers`, so that an adapter trained in bf16 on a GPU finds its base again in fp32 on a CPU.
    """
    config = model.config.to_diff_dict()
    for key in ("dtype", "torch_dtype", "transformers_version", "_name_or_path"):
        config.pop(key, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    # Rounding to bf16 makes the hash independent of the precision. Hashing every byte of a large model on
    # its way from a GPU would take seconds. The sum of all words runs where the weights are and is exact,
    # being an integer's, so that no order of summation matters: any single change moves it. A thousand
    # words beside it tell weights in another order apart.
    for name, weight in sorted(model.state_dict().items()):
        words = weight.detach().flatten()
        if words.is_floating_point():
            words = words.to(torch.bfloat16).view(torch.int16)
        sampled = words[:: max(1, len(words) // 1000)].cpu().numpy().tobytes()
        digest.update(f"{name}{tuple(weight.shape)}{int(words.sum(dtype=torch.int64))}".encode() + sampled)
    return digest.hexdigest()[:16]
