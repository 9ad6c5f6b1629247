"""How an arm is chosen from what is known of each: Algorithm 1 and its relatives, one file each.

An algorithm of one's own follows the protocols `Algorithm` and `AlgorithmFactory`. A program registers it by
`ALGORITHMS.register(name, factory)`; an installed package names it in the entry point group
`editloop.bandits`.
"""

from typing import Any

from editloop.errors import ConfigError
from editloop.online.algorithms.base import Algorithm, AlgorithmFactory
from editloop.online.algorithms.fixed import Fixed
from editloop.online.algorithms.kl_ucb import KLUCB
from editloop.online.algorithms.lin_ts import LinTS
from editloop.online.algorithms.rand_ucb import RandUCB
from editloop.online.algorithms.regret_balancing import RegretBalancing
from editloop.online.algorithms.square_cb import SquareCB
from editloop.online.algorithms.thompson import Thompson
from editloop.online.algorithms.ucb import ALPHA, UCB
from editloop.online.algorithms.uniform import Uniform
from editloop.registry import Registry

__all__ = [
    "ALGORITHMS",
    "ALPHA",
    "KLUCB",
    "UCB",
    "Algorithm",
    "AlgorithmFactory",
    "Fixed",
    "LinTS",
    "RandUCB",
    "RegretBalancing",
    "SquareCB",
    "Thompson",
    "Uniform",
    "get_algorithm",
]

ALGORITHMS: Registry[AlgorithmFactory] = Registry(
    "algorithm",
    "editloop.bandits",
    {
        "ucb": "editloop.online.algorithms.ucb:UCB",
        "rand-ucb": "editloop.online.algorithms.rand_ucb:RandUCB",
        "square-cb": "editloop.online.algorithms.square_cb:SquareCB",
        "lin-ts": "editloop.online.algorithms.lin_ts:LinTS",
        "kl-ucb": "editloop.online.algorithms.kl_ucb:KLUCB",
        "thompson": "editloop.online.algorithms.thompson:Thompson",
        "regret-balancing": "editloop.online.algorithms.regret_balancing:RegretBalancing",
        "uniform": "editloop.online.algorithms.uniform:Uniform",
        "fixed": "editloop.online.algorithms.fixed:Fixed",
    },
    attributes=("for_costs",),
)


def get_algorithm(name: str, **options: Any) -> Algorithm:
    """Return the algorithm of that name with these options of its own.

    Raises:
        ConfigError: An unknown name or option.
    """
    factory = ALGORITHMS.get(name)
    try:
        return factory(**options)
    except TypeError as error:
        raise ConfigError(f"{name} does not take these options", seen=options) from error
