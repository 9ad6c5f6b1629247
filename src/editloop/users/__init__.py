"""Who edits: style users and rule users of many strengths, users who drift, and users played by an LLM.

A user turns a context and a response into an edit. This package knows neither where contexts come from
(`lab`) nor who wrote the response.
"""

from __future__ import annotations

from editloop.users.llm import LLMSettings, LLMUser
from editloop.users.named import get_user
from editloop.users.rule import RuledWorld, RuleUser
from editloop.users.style import (
    HABITS,
    Domain,
    Draft,
    DriftingUser,
    Habits,
    StyleUser,
    User,
    edit_all,
)

__all__ = [
    "HABITS",
    "Domain",
    "Draft",
    "DriftingUser",
    "Habits",
    "LLMSettings",
    "LLMUser",
    "RuleUser",
    "RuledWorld",
    "StyleUser",
    "User",
    "edit_all",
    "get_user",
]
