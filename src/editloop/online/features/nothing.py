"""No features: all requests are alike."""

from __future__ import annotations

from collections.abc import Sequence

from editloop.edits import Context

__all__ = ["NoFeatures"]


class NoFeatures:
    """No features, as in Algorithm 1."""

    kind = "none"

    def __call__(self, context: Context, user: str) -> Sequence[float]:
        """See `FeatureMap`."""
        return ()
