"""The names of in-context policies: `KIND-EXAMPLES:POLICY`, such as `retrieval-4:base`.

A colon is in no name of a policy of a run, so the two cannot be confused. The number of examples is a part of
the name because policies with other numbers are other policies, whose edits are counted apart.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from editloop.errors import ConfigError
from editloop.serve.in_context import IN_CONTEXT

__all__ = ["MOST_EXAMPLES", "InContextName"]

MOST_EXAMPLES = 32
"""The most past edits in a prompt."""

LONGEST_NAME = 64
"""The characters of a name that the store keeps."""

_FORM = re.compile(r"(?P<kind>[a-z_]+)(?:-(?P<examples>[0-9]{1,2}))?(?::(?P<policy>[\w.-]+))?")


class InContextName(NamedTuple):
    """The parts of a name.

    Attributes:
        kind: A name of `IN_CONTEXT`.
        examples: The most past edits in a prompt.
        policy: The policy of the run that it stands on.
    """

    kind: str
    examples: int
    policy: str = "base"

    def __str__(self) -> str:
        return f"{self.kind}-{self.examples}:{self.policy}"

    @classmethod
    def parse(cls, text: str) -> InContextName:
        """Return the parts of a name; those that are left out are the kind's number of examples, and `base`.

        Raises:
            ConfigError: There is no such kind, or the number is out of its range.
        """
        found = _FORM.fullmatch(text.strip())
        if found is None:
            raise ConfigError(
                "not the name of an in-context policy", seen=text, do="write retrieval, or retrieval-4:base"
            )
        kind = IN_CONTEXT.get(found["kind"])
        examples = kind.examples if found["examples"] is None else int(found["examples"])
        if not 1 <= examples <= MOST_EXAMPLES:
            raise ConfigError(f"an in-context policy takes 1 to {MOST_EXAMPLES} examples", seen=text)
        name = cls(found["kind"], examples, found["policy"] or "base")
        if len(str(name)) > LONGEST_NAME:
            raise ConfigError(f"a policy's name has at most {LONGEST_NAME} characters", seen=str(name))
        return name

    @staticmethod
    def is_one(name: str) -> bool:
        """Return whether a policy's name is that of an in-context policy."""
        return ":" in name
