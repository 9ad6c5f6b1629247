"""Who edits: style users of two strengths.

A user turns a context and a response into an edit. This room does not know where contexts come from
(`lab`), nor who wrote the response.
"""

from __future__ import annotations

from editloop.users.style import REPAIR_RATES, Domain, Draft, StyleUser, User, get_user

__all__ = ["REPAIR_RATES", "Domain", "Draft", "StyleUser", "User", "get_user"]
