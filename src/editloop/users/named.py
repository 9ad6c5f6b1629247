"""The named users (`HABITS`) of any world whose texts they can edit."""

from __future__ import annotations

from editloop.errors import ConfigError
from editloop.users.code import CodeUser, RunnableDomain
from editloop.users.rule import RuledWorld, RuleUser
from editloop.users.style import Domain, StyleUser, User, habits_of

__all__ = ["get_user"]


def get_user(name: str, world: object, *, seed: int = 0) -> User:
    """Return the user of that name.

    Args:
        name: One of `HABITS`.
        world: A domain, whose responses a style user takes apart, or one with tests, which a user of code
            looks at first, or a world with rules over plain text, which a rule user applies.
        seed: The seed of the user's choices.

    Raises:
        ConfigError: There is no user of that name, or nobody but a user played by an LLM can edit this
            world's texts.
    """
    habits = habits_of(name)
    if isinstance(world, RuledWorld):
        return RuleUser(world, name=name, seed=seed)
    if isinstance(world, RunnableDomain):
        return CodeUser(world, habits, name=name, seed=seed)
    if isinstance(world, Domain):
        return StyleUser(world, name=name, seed=seed, **habits._asdict())
    raise ConfigError("only the llm user can read real texts", seen=name, do="give --user llm")
