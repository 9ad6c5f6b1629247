"""The feedback loop: decide which policy answers, record what came of it, learn from it."""
