"""The command: one module per verb. They parse, call and print; what they call knows nothing of them.

A verb's own imports stand inside it, so that `editloop --help` loads neither torch nor transformers.
"""

from editloop.cli.app import app, main

__all__ = ["app", "main"]
