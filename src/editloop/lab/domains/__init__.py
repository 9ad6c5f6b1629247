"""The domains of the lab, one file each.

A domain of one's own is a `Domain` (`editloop.lab.grammar`). A program registers it by
`DOMAINS.register(name, domain)`; an installed package names it in the entry point group `editloop.domains`.
Nothing here loads torch or transformers.
"""

from editloop.lab.domains.names import DOMAINS, base_path, free_texts, get_domain

__all__ = ["DOMAINS", "base_path", "free_texts", "get_domain"]
