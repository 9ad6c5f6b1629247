"""Who edits: style users of many strengths, users who drift, and users played by an LLM.

A user turns a context and a response into an edit. This package knows neither where contexts come from
(`lab`) nor who wrote the response.
"""

from __future__ import annotations

from editloop.users.llm import LLMSettings, LLMUser
from editloop.users.style import (
    HABITS,
    Domain,
    Draft,
    DriftingUser,
    Habits,
    StyleUser,
    User,
    edit_all,
    get_user,
)

__all__ = [
    "HABITS",
    "Domain",
    "Draft",
    "DriftingUser",
    "Habits",
    "LLMSettings",
    "LLMUser",
    "StyleUser",
    "User",
    "edit_all",
    "get_user",
]
