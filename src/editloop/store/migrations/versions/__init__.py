"""One module a version; each says what it follows."""
