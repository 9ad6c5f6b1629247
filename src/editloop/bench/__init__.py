"""The tables of the paper, and side-by-sides with other libraries; each module is one benchmark."""
