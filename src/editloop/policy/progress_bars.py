"""The progress bars of the libraries that load a model, which would be drawn across our own lines."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

__all__ = ["downloads_alone"]


@contextmanager
def downloads_alone() -> Iterator[None]:
    """Hide the progress bars of `transformers` in a block; those of downloads are still shown."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )
    from transformers import modeling_gguf_pytorch_utils as gguf_reader
    from transformers.utils import logging

    loading, downloads = logging.is_progress_bar_enabled(), not are_progress_bars_disabled()
    # The reader of GGUF files takes its bar from tqdm itself, so that no setting of the library hides it.
    bar = gguf_reader.tqdm
    logging.disable_progress_bar()  # which hides those of downloads, too
    if downloads:
        enable_progress_bars()
    gguf_reader.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        gguf_reader.tqdm = bar
        if loading:
            logging.enable_progress_bar()  # which shows those of downloads, too
        if not downloads:
            disable_progress_bars()
