"""Several LoRA adapters on one base, where each row of a batch has its own.

The adapters of all rows are laid side by side: A becomes one matrix [ranks, in], and B one matrix
[out, ranks]. Of the numbers between them, a row keeps those of its own adapter. So a layer takes two small
products, whatever adapters the rows have. PEFT's own way (`adapter_names`) takes two for each adapter, copies
rows back and forth, and registers a hook on every layer at every token.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from torch.nn import functional as F

from editloop.errors import ModelError
from editloop.policy.mode import core_of
from editloop.policy.verify import ADAPTER
from editloop.policy.weights import read_header

__all__ = ["RowAdapters"]

NO_ADAPTER = "__base__"
"""PEFT's name for rows that have no adapter."""


class RowAdapters:
    """The adapters on a base.

    Args:
        base: A causal LM of `transformers`. Adapters are put on it in place.
    """

    def __init__(self, base: Any) -> None:
        self._base = base
        self._model: Any = None
        self._hooks: dict[nn.Module, Any] = {}
        self._held: frozenset[str] = frozenset()
        self._blocks: dict[nn.Module, _Block] = {}
        self._rows: Sequence[str | None] = ()
        self._foreign: dict[tuple[str, ...], torch.Tensor | None] = {}
        self._is_grouped = True
        self.names: set[str] = set()

    def load(self, name: str, folder: Path) -> None:
        """Put an adapter on the base, beside those that are there.

        Raises:
            ModelError: The adapter's weights are not exactly those that the base's modules need, or it is of
                a kind that rows of one batch cannot have each for itself: DoRA, and whole modules.
        """
        from peft import PeftModel
        from peft.utils import get_peft_model_state_dict

        model = self._model
        try:
            # PEFT only warns of missing weights, which are an error below, and of a bias, which is none.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                if model is None:
                    model = PeftModel.from_pretrained(self._base, str(folder), adapter_name=name)
                else:
                    model.load_adapter(str(folder), adapter_name=name)
                have = get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False).keys()
            given = read_header(folder / ADAPTER).keys()
            if have != given:
                raise ValueError(f"{len(have - given)} weights missing, {len(given - have)} unknown")
            if not all(map(_is_by_row, core_of(model).modules())):
                raise ValueError("DoRA and trained whole modules cannot share a batch with other adapters")
        except (OSError, ValueError, RuntimeError, LookupError, TypeError, SafetensorError) as error:
            # PEFT may have put its layers into the base's modules already.
            if self._model is not None and name in self._model.peft_config:
                self._model.delete_adapter(name)
            elif isinstance(model, PeftModel) and self._model is None:
                _take_off(model)
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            self._follow_layers()
            raise ModelError(f"the adapter cannot be loaded: {reason}", seen=str(folder)) from error
        self._model = model
        self.names.add(name)
        self._follow_layers()

    def remove(self, name: str) -> None:
        """Take an adapter off the base, and free its memory."""
        self.names.discard(name)
        self._held, self._blocks = frozenset(), {}
        if self.names:
            with warnings.catch_warnings():  # PEFT tells which one is active now; here each row has its own
                warnings.simplefilter("ignore")
                self._model.delete_adapter(name)
        else:  # PEFT keeps its layers, with nothing in them
            _take_off(self._model)
            self._model = None
        self._follow_layers()

    def _follow_layers(self) -> None:
        """Hook the layers that PEFT has put into the base, and switch off what PEFT itself would add."""
        from peft.tuners.lora import LoraLayer

        for hook in self._hooks.values():
            hook.remove()
        self._hooks = {}
        if self._model is None:
            return
        layers = [module for module in core_of(self._model).modules() if isinstance(module, LoraLayer)]
        self._is_grouped = all(map(_is_plain, layers))
        if self._is_grouped:
            self._model.base_model.disable_adapter_layers()
            self._hooks = {each: each.register_forward_hook(self._add) for each in layers}
        else:
            self._model.base_model.enable_adapter_layers()
        self._model.eval()

    def hold(self, names: Set[str | None]) -> None:
        """Lay the adapters of these names side by side, for the forwards that follow.

        Args:
            names: The names of all rows that are being generated; None means no adapter.
        """
        wanted = frozenset(name for name in names if name is not None)
        if wanted != self._held:
            self._blocks = {layer: _Block(layer, sorted(wanted)) for layer in self._hooks}
            self._held = wanted

    @contextmanager
    def switched_off(self) -> Iterator[None]:
        """A context in which the base is as if no adapter were on it, whoever asks it."""
        blocks, self._blocks = self._blocks, {}
        try:
            # Plain layers add nothing but what the hooks add; others are PEFT's own matter.
            with nullcontext() if self._model is None or self._is_grouped else self._model.disable_adapter():
                yield
        finally:
            self._blocks = blocks

    def forward(self, names: Sequence[str | None], ids: torch.Tensor, **arguments: Any) -> Any:
        """The base's output for rows of tokens, each with its own adapter.

        Args:
            names: The adapter of each row, which is held; None for no adapter.
            ids: Token ids [rows, columns].
            arguments: Further arguments of the model's `forward`.
        """
        if self._model is None or self._is_grouped:
            if names != self._rows:
                self._rows, self._foreign = list(names), {}
            return self._base(input_ids=ids, **arguments)
        chosen = [NO_ADAPTER if name is None else name for name in names]
        return self._model(input_ids=ids, adapter_names=chosen, **arguments)

    def _add(self, layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        """A hook of each layer: its output with what the rows' adapters add to it."""
        block = self._blocks.get(layer)
        if block is None or not block.owners:
            return output
        return block.add(inputs[0], output, self._foreign_numbers(block.owners, output.device))

    def _foreign_numbers(self, owners: tuple[str, ...], device: torch.device) -> torch.Tensor | None:
        """Which numbers between A and B belong to another adapter than the row's [rows, ranks]; None if none.

        Nearly all layers have the same owners, so this is made once for a forward and not for each layer,
        which would take as long as all products of the adapters.
        """
        if owners not in self._foreign:
            found = [[owner != row for owner in owners] for row in self._rows]
            self._foreign[owners] = torch.tensor(found, device=device) if any(map(any, found)) else None
        return self._foreign[owners]


class _Block:
    """The adapters of a layer, side by side.

    Args:
        layer: PEFT's layer.
        names: The adapters; those that the layer lacks are left out.
    """

    def __init__(self, layer: Any, names: Sequence[str]) -> None:
        own = [name for name in names if name in layer.lora_A]
        self.owners = tuple(name for name in own for _ in range(layer.r[name]))
        if own:
            self._a = torch.cat([layer.lora_A[name].weight for name in own]).detach()
            scaled = [layer.lora_B[name].weight * layer.scaling[name] for name in own]
            # Transposed once: with few rows, a product takes half as long again if it reads B by columns.
            self._b = torch.cat(scaled, dim=1).detach().T.contiguous()

    def add(self, x: torch.Tensor, output: torch.Tensor, foreign: torch.Tensor | None) -> torch.Tensor:
        """The output [rows, ..., out] with what the adapters add to it, from the input [rows, ..., in].

        Args:
            x: The input.
            output: The layer's own output.
            foreign: Where a number between A and B is of another adapter than the row's [rows, ranks].

        Raises:
            ModelError: The layer's input is not laid out by rows, and the rows differ.
        """
        low = F.linear(x.to(self._a.dtype), self._a)
        if foreign is not None:
            if len(x) != len(foreign):
                raise ModelError("a layer mixes the rows of a batch, so each cannot have its own adapter")
            # Not a product with 0: another row's adapter may overflow, and 0 times infinity is NaN.
            low = low.masked_fill(foreign.view(len(x), *[1] * (x.dim() - 2), -1), 0.0)
        if low.dtype != output.dtype:  # float32 adapters on a base in bfloat16
            return output + (low @ self._b).to(output.dtype)
        # One operation, not two: with a row for each of a few users, starting them is what takes the time.
        return torch.addmm(output.flatten(0, -2), low.flatten(0, -2), self._b).view_as(output)


def _is_by_row(module: nn.Module) -> bool:
    """Whether PEFT can compute a module with another adapter for each row."""
    from peft.tuners.lora import LoraLayer
    from peft.tuners.lora.layer import ParamWrapper
    from peft.utils.other import AuxiliaryTrainingWrapper

    is_whole = isinstance(module, (AuxiliaryTrainingWrapper, ParamWrapper))
    return not is_whole and not (isinstance(module, LoraLayer) and module.lora_variant)


def _is_plain(layer: Any) -> bool:
    """Whether a layer adds B A x, and nothing else, for all its adapters."""
    pairs = [*layer.lora_A.values(), *layer.lora_B.values()]
    return not layer.lora_embedding_A and all(
        isinstance(each, nn.Linear) and each.bias is None for each in pairs
    )


def _take_off(model: Any) -> None:
    """Take all of PEFT's layers out of the base again.

    With the attribute that PEFT leaves, it would take the base for one that still has adapters.
    """
    model.unload().__dict__.pop("peft_config", None)
