"""One module for each version of the schema. Each names the version that it follows."""
