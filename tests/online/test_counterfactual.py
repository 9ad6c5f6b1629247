"""What other rules would have cost: oracles by hand, replays, and logs that cannot tell."""

from __future__ import annotations

from plug_in import install_plug_in  # noqa: F401
