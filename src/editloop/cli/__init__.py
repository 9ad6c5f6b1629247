"""The command: one module per verb. A verb parses, calls and prints; nothing below knows the command.

The imports that only one verb needs are inside its function, so that `editloop --help` loads neither torch
nor transformers.
"""

from editloop.cli.app import app, main

__all__ = ["app", "main"]
