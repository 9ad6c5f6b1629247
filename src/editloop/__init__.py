"""EditLoop turns the edits people make to an LLM's drafts into better policies.

The names here are loaded when they are first used, so that `import editloop` needs neither torch
nor transformers.
"""

from __future__ import annotations

__version__ = "0.1.0"
