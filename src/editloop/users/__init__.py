"""Who edits: style users, users of code and rule users of many strengths, users who drift, and users played
by an LLM.

A user turns a context and a response into an edit. This package knows neither where contexts come from
(`lab`) nor who wrote the response.
"""

from __future__ import annotations

from editloop.users.code import CodeUser, RunnableDomain
from editloop.users.judge import LLMJudge
from editloop.users.ledger import LLMSettings
from editloop.users.llm import LLMUser
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
from editloop.users.uneven import UnevenUser
from editloop.users.wrong import SpoilableDomain, WrongUser

__all__ = [
    "HABITS",
    "CodeUser",
    "Domain",
    "Draft",
    "DriftingUser",
    "Habits",
    "LLMJudge",
    "LLMSettings",
    "LLMUser",
    "RuleUser",
    "RuledWorld",
    "RunnableDomain",
    "SpoilableDomain",
    "StyleUser",
    "UnevenUser",
    "User",
    "WrongUser",
    "edit_all",
    "get_user",
]
