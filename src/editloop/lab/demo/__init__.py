"""The demo: the whole loop on the embedded world, from two users' logs to a verdict on what to serve.

`settings.py` says how large it is, `loop.py` runs it, `verdict.py` draws the conclusion, and `page.py` and
`terminal.py` show it. `real.py` runs the loop on a real base, for which there is no verdict.
"""

from __future__ import annotations

from editloop.lab.demo.loop import run_demo
from editloop.lab.demo.real import RealDemoResult, RealDemoSettings, run_real_demo
from editloop.lab.demo.result import DemoResult, UserResult
from editloop.lab.demo.settings import DemoSettings, full_settings, quick_settings

__all__ = [
    "DemoResult",
    "DemoSettings",
    "RealDemoResult",
    "RealDemoSettings",
    "UserResult",
    "full_settings",
    "quick_settings",
    "run_demo",
    "run_real_demo",
]
