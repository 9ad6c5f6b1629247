"""The paper's claims as experiments: each module has a `run`, which writes a table and a figure."""
