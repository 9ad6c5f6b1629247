"""Python programs that nobody has read, run where they can do no harm.

Code that a model wrote is hostile until it has been shown otherwise. A `Sandbox` runs each program in
namespaces of its own, as an unprivileged user, without a network, and within limits; where that is not
possible it refuses. It knows neither logs nor the lab.
"""

from __future__ import annotations

from editloop.sandbox.program import Execution, Limits, Program, Status
from editloop.sandbox.sandbox import Sandbox, sandbox_command

__all__ = ["Execution", "Limits", "Program", "Sandbox", "Status", "sandbox_command"]
