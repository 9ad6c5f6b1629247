"""The demo: the whole loop on the embedded world, from two users' logs to a verdict on what to serve.

`settings.py` says how large it is, `loop.py` runs it, `verdict.py` draws the conclusion, and `page.py` and
`terminal.py` show it.
"""

from __future__ import annotations

from editloop.lab.demo.loop import run_demo
from editloop.lab.demo.result import DemoResult, UserResult
from editloop.lab.demo.settings import DemoSettings, full_settings, quick_settings

__all__ = ["DemoResult", "DemoSettings", "UserResult", "full_settings", "quick_settings", "run_demo"]
