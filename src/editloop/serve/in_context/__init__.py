"""In-context policies: what a user's past edits show goes into the prompt, and nothing is trained.

The training-free peer of the policies that learn (Gao et al. 2024, arXiv 2404.15269: retrieval of past
edits, and CIPHER). An in-context policy stands on a policy of a run, in any backend: `retrieval-4:base` puts
the four most similar past edits of this user into the prompt and asks the base. It is an arm like any other.

    name        what an arm's name says                                           (`name`)
    retrieve    the k most similar past edits of this user, out of the store      (`past_edits`, `similarity`)
    write       the prompt that the policy gets                                   (`retrieval`, `preference`)
    learn       what each edit says of the user's preferences, asked of the base  (`preferences`)
    serve       a backend that does this around another one                       (`backend`)

A kind of one's own follows the protocol `InContextKind`, and is registered by
`IN_CONTEXT.register(name, kind)` or named in the entry point group `editloop.in_context`.
"""

from __future__ import annotations

from editloop.registry import Registry
from editloop.serve.in_context.base import InContextKind

__all__ = ["IN_CONTEXT", "InContextKind"]

IN_CONTEXT: Registry[InContextKind] = Registry(
    "kind of in-context policy",
    "editloop.in_context",
    {
        "preference": "editloop.serve.in_context.preference:PREFERENCE",
        "retrieval": "editloop.serve.in_context.retrieval:RETRIEVAL",
    },
    attributes=("examples", "wants", "learns", "write"),
)
"""What can be put into a prompt, by name."""
