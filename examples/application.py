"""An application whose drafts come from a server that learns from what its users make of them.

    editloop serve run --store edits.db          # in another terminal; `run` is what editloop fit wrote
    python examples/application.py http://127.0.0.1:8040

It needs nothing but `pip install editloop`. The drafts may as well be asked for by an OpenAI client; see
docs/serve.md.
"""

from __future__ import annotations

import sys

import editloop

NOTES = ["Invite Ada to the demo on Friday.", "Thank Grace for the review.", "Ask Alan for the slides."]


def ask_the_user(draft: str) -> str:
    """What a person makes of a draft; an application shows it in its editor."""
    return draft.strip() if draft.rstrip().endswith("Bob") else f"{draft.strip()}\nBob"


# An edit that the server cannot take now waits in the spool, and is sent with the next one.
with editloop.Client(sys.argv[1], spool="edits-to-send.jsonl") as client:
    for note in NOTES:
        draft = client.complete(note, user="bob")  # the server chooses the policy for this user
        final = ask_the_user(draft.text)
        if final == draft.text:
            taken = client.accept(draft.response_id)
        else:
            taken = client.edit(draft.response_id, final)
        cost = "not known yet" if taken.cost is None else f"{taken.cost:.2f}"
        print(f"{draft.policy}: {note} The edit's cost: {cost}")
