"""Where policies run: what a serving backend is, and the two that come with EditLoop."""
