"""What is known of a request before it is answered, as numbers by which requests differ.

A feature map of one's own follows the protocol `FeatureMap`. A program registers a factory of it by
`FEATURES.register(name, factory)`; an installed package names one in the entry point group
`editloop.features`.
"""

from __future__ import annotations

from collections.abc import Callable

from editloop.online.features.base import FeatureMap, Features, decoded, encoded
from editloop.online.features.hashed import HashedWords
from editloop.online.features.nothing import NoFeatures
from editloop.registry import Registry

__all__ = ["FEATURES", "FeatureMap", "Features", "HashedWords", "NoFeatures", "decoded", "encoded"]

FEATURES: Registry[Callable[[], FeatureMap]] = Registry(
    "feature map",
    "editloop.features",
    {
        "embedded": "editloop.online.features.embedded:EmbeddedText",
        "hashed": "editloop.online.features.hashed:HashedWords",
        "none": "editloop.online.features.nothing:NoFeatures",
    },
)
