"""A language model as a policy: a base, at most one adapter, and the encoder that goes with them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from editloop.edits import ContextLike
from editloop.errors import ModelError
from editloop.extras import requires
from editloop.policy.bases import resolve_base
from editloop.policy.device import choose_device, choose_dtype
from editloop.policy.encode import Encoder
from editloop.policy.logprob import batch_features, batch_log_probs
from editloop.policy.mode import evaluating
from editloop.policy.probe import probe_trees
from editloop.policy.sampling import Sample, sample
from editloop.policy.tree import ContextTree, TreeBatch, pack

__all__ = ["Policy", "load_base"]

# One query-key pair costs this much of a token's other work over the width of the model. On a CPU attention
# alone measured 0.33; LoRA and the output embedding add to the other work, and whole steps gave 0.1 to 0.3.
ATTENTION_COST = 0.25
DEFAULT_LENGTH = 4096  # tokens; a mask of a row grows with its square


@dataclass
class Policy:
    """A causal LM with its encoder.

    Attributes:
        model: The `transformers` model, or its PEFT wrapper while an adapter is on it.
        encoder: Text to tokens.
        base: The hub name or folder that the base was loaded from.
        fingerprint: Hash of the base's configuration and weights.
        shares: Whether the model takes tree masks; if not, plain sequences are used.
        decisions: What was chosen on loading and why, a line each.
        quantize: How the base was quantised on loading, if it was.
        dtype: The precision that was asked for, `auto` included.
        trust_remote_code: Whether the base was allowed to run code of its own.
    """

    model: Any
    encoder: Encoder
    base: str
    fingerprint: str
    shares: bool
    decisions: list[str] = field(default_factory=list)
    quantize: str | None = None
    dtype: str = "auto"
    trust_remote_code: bool = False

    @property
    def device(self) -> torch.device:
        """Where the model's weights lie."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]

    @property
    def attention_cost(self) -> float:
        """Work of one query-key pair in units of a token's other work (see `pack`)."""
        return ATTENTION_COST / float(self.model.config.get_text_config().hidden_size)

    def pack(self, trees: Sequence[ContextTree], *, from_fork: bool = False) -> TreeBatch:
        """Pack trees in the form that this model takes (see `editloop.policy.pack`)."""
        return pack(
            trees,
            share=self.shares,
            from_fork=from_fork,
            attention_cost=self.attention_cost,
            pad=self.encoder.pad,
        )

    @torch.inference_mode()
    def log_probs(
        self,
        trees: Sequence[ContextTree],
        *,
        from_fork: bool = False,
        batch_tokens: int = 4096,
        progress: Callable[[int], None] | None = None,
    ) -> list[list[float]]:
        """Log-probabilities (natural log) of every continuation of every tree, without gradients.

        Args:
            trees: Context trees, from `Encoder.tree`.
            from_fork: Count only what follows the part that all continuations of a tree share.
            batch_tokens: About how many tokens go through the model at a time.
            progress: Called with the number of trees done.
        """
        result: list[list[float]] = [[] for _ in trees]
        for members, batch in self._batches(trees, batch_tokens, progress, from_fork=from_fork):
            counts = [len(trees[i].continuations) for i in members]
            for i, scores in zip(
                members, torch.split(batch_log_probs(self.model, batch), counts), strict=True
            ):
                result[i] = scores.tolist()
        return result

    @torch.inference_mode()
    def features(
        self,
        trees: Sequence[ContextTree],
        *,
        batch_tokens: int = 4096,
        progress: Callable[[int], None] | None = None,
    ) -> tuple[list[list[float]], list[NDArray[np.float32]]]:
        """Log-probabilities and features of every continuation, without gradients.

        Args:
            trees: Context trees.
            batch_tokens: As of `log_probs`.
            progress: As of `log_probs`.

        Returns:
            For each tree its continuations' log-probabilities, and their features (see
            `editloop.policy.batch_features`), float32 [continuations, F].
        """
        scores: list[list[float]] = [[] for _ in trees]
        features: list[NDArray[np.float32]] = [np.empty((0, 0), np.float32)] * len(trees)
        for members, batch in self._batches(trees, batch_tokens, progress):
            counts = [len(trees[i].continuations) for i in members]
            found, table = (torch.split(each, counts) for each in batch_features(self.model, batch))
            for k, i in enumerate(members):
                scores[i], features[i] = found[k].tolist(), table[k].cpu().numpy()
        return scores, features

    def _batches(
        self,
        trees: Sequence[ContextTree],
        batch_tokens: int,
        progress: Callable[[int], None] | None,
        *,
        from_fork: bool = False,
    ) -> Iterator[tuple[list[int], TreeBatch]]:
        """Packed trees with their indices; while they are run, the model is in evaluation mode."""
        done = 0
        with evaluating(self.model):
            for members in _batches_by_tokens(trees, batch_tokens):
                yield members, self.pack([trees[i] for i in members], from_fork=from_fork)
                done += len(members)
                if progress is not None:
                    progress(done)

    def sample(
        self,
        contexts: Sequence[ContextLike],
        *,
        seed: int = 0,
        temperature: float = 1.0,
        max_new_tokens: int = 256,
        batch_size: int = 32,
        progress: Callable[[int], None] | None = None,
    ) -> list[Sample]:
        """One sampled response for each context (see `editloop.policy.sampling.sample`)."""
        return sample(
            self.model,
            self.encoder,
            contexts,
            seed=seed,
            temperature=temperature,
            max_new_tokens=max_new_tokens,
            batch_size=batch_size,
            progress=progress,
        )

    @property
    def has_reference(self) -> bool:
        """Whether the reference is another distribution than the policy: an adapter lies on the base."""
        return hasattr(self.model, "disable_adapter")

    @contextmanager
    def reference(self) -> Iterator[None]:
        """Within it the policy is the reference: the base with the adapter off."""
        if self.has_reference:
            with self.model.disable_adapter():
                yield
        else:
            yield


def load_base(
    base: str | Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    quantize: str | None = None,
    max_length: int | None = None,
    end_token: str | None = None,
    trust_remote_code: bool = False,
) -> Policy:
    """Load a causal LM as a policy.

    Args:
        base: A hub name, a local folder in Hugging Face format, or `lab:email`, `lab:summary`: those of the
            embedded lab.
        device: `auto` or a torch device.
        dtype: `auto`, `float32`, `bfloat16` or `float16`.
        quantize: `4bit` loads the base by bitsandbytes in NF4; None does not.
        max_length: Most tokens of context and continuation; by default 4,096, and never above the
            model's limit.
        end_token: The token that ends a turn, where it cannot be found.
        trust_remote_code: Passed to `transformers`.

    Raises:
        ModelError: The folder, its weights or its tokenizer cannot be loaded.
        ConfigError: The device, dtype or end token cannot be used, or the lab has no such base.
    """
    base = resolve_base(base)
    chosen_device, device_why = choose_device(device)
    chosen_dtype, dtype_why = choose_dtype(chosen_device, dtype)
    options: dict[str, Any] = {"dtype": chosen_dtype, "trust_remote_code": trust_remote_code}
    if quantize is not None:
        options |= _quantized(quantize, chosen_device, chosen_dtype)
    _check_folder(base)
    tokenizer, model = _from_pretrained(str(base), options)
    model = model.to(chosen_device) if quantize is None else _prepared(model)
    model.eval()
    limit = _model_limit(model)
    length = min(max_length or DEFAULT_LENGTH, limit or DEFAULT_LENGTH)
    length_why = {max_length: "as asked", limit: "the limit of the model"}.get(
        length, "change it by --max-length"
    )
    encoder = Encoder(tokenizer, length, end_token)
    shares, share_why = probe_trees(model)
    precision = str(chosen_dtype).removeprefix("torch.")
    decisions = [
        f"device {chosen_device} ({device_why}), dtype {precision} ({dtype_why})",
        f"length {length} tokens ({length_why})",
        encoder.why,
        f"{'context trees' if shares else 'plain sequences'} ({share_why})",
    ]
    source = str(Path(base).resolve()) if Path(base).is_dir() else str(base)
    return Policy(
        model,
        encoder,
        source,
        _fingerprint(model),
        shares,
        decisions,
        quantize=quantize,
        dtype=dtype,
        trust_remote_code=trust_remote_code,
    )


def _from_pretrained(source: str, options: dict[str, Any]) -> tuple[Any, Any]:
    """Tokenizer and model; progress bars are for downloads only."""
    from transformers import AutoTokenizer
    from transformers.utils import logging

    bars = logging.is_progress_bar_enabled()
    if bars and Path(source).is_dir():
        logging.disable_progress_bar()
    try:
        tokenizer = AutoTokenizer.from_pretrained(source, trust_remote_code=options["trust_remote_code"])
        model = _load_model(source, options)
    except (OSError, ValueError, KeyError, ImportError, RuntimeError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"the base cannot be loaded: {reason}", seen=source, do="check --base") from error
    finally:
        if bars:
            logging.enable_progress_bar()
    return tokenizer, model


def _load_model(source: str, options: dict[str, Any]) -> Any:
    """The model, by SDPA or, in families without it, by eager attention.

    Raises:
        ModelError: Weights are missing; `transformers` would leave random ones in their place.
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
    """A folder without a configuration or weights gets a clear error before anything is loaded."""
    folder = Path(base)
    if not folder.exists():
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


def _quantized(quantize: str, device: torch.device, dtype: torch.dtype) -> dict[str, Any]:
    from editloop.errors import ConfigError

    if quantize != "4bit":
        raise ConfigError("unknown quantisation", seen=quantize, do="choose --quantize 4bit")
    requires("quantized")
    from transformers import BitsAndBytesConfig

    config = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)
    return {"quantization_config": config, "device_map": {"": device}}


def _prepared(model: Any) -> Any:
    """A quantised base, ready to carry adapters; here, because it casts what is not quantised to float32.

    Later it would change the base between the reference pass and the training.
    """
    from peft import prepare_model_for_kbit_training

    return prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)


def _model_limit(model: Any) -> int | None:
    config = model.config.get_text_config()
    limit = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    return int(limit) if limit else None


def _fingerprint(model: Any) -> str:
    """Hash of the configuration and the weights, so that an edited base is another base.

    A base is the same in every precision, on every device and under every version of `transformers`:
    what an adapter was trained on in bf16 on a GPU is found again in fp32 on a CPU. Each weight enters by
    its shape, the exact sum of its words in bf16, and a thousand of them.
    """
    config = model.config.to_diff_dict()
    for key in ("dtype", "torch_dtype", "transformers_version", "_name_or_path"):
        config.pop(key, None)
    digest = hashlib.sha256(json.dumps(config, sort_keys=True, default=str).encode())
    for name, weight in sorted(model.state_dict().items()):
        words = weight.detach().flatten()
        if words.is_floating_point():
            words = words.to(torch.bfloat16).view(torch.int16)
        sampled = words[:: max(1, len(words) // 1000)].cpu().numpy().tobytes()
        digest.update(f"{name}{tuple(weight.shape)}{int(words.sum(dtype=torch.int64))}".encode() + sampled)
    return digest.hexdigest()[:16]


def _batches_by_tokens(trees: Sequence[ContextTree], budget: int) -> Iterator[list[int]]:
    """Indices of trees, longest first, so that each batch holds about `budget` tokens."""
    members: list[int] = []
    used = 0
    for i in sorted(range(len(trees)), key=lambda i: -len(trees[i].layout)):
        size = len(trees[i].layout)
        if members and used + size > budget:
            yield members
            members, used = [], 0
        members.append(i)
        used += size
    if members:
        yield members
