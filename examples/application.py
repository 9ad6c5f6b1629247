"""An application that gets its drafts from a server, and sends back what its users make of them.

    editloop serve run --store edits.db          # in another terminal; `run` is the run folder of a fit
    python examples/application.py http://127.0.0.1:8040

The application needs only `pip install editloop`. An OpenAI client can request the drafts just as well: see
docs/serve.md.
"""

from __future__ import annotations

import sys

import editloop

NOTES = ["Invite Ada to the demo on Friday.", "Thank Grace for the review.", "Ask Alan for the slides."]


def ask_the_user(draft: str) -> str:
    """Return the text that the user keeps. A real application shows the draft in its editor."""
    return draft.strip() if draft.rstrip().endswith("Bob") else f"{draft.strip()}\nBob"


# An edit that the server cannot take now is kept in the spool file, and sent again with the next one.
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
