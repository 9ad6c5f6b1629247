"""OpenTelemetry: other systems' GenAI spans as drafts, and this server's completions as GenAI spans."""
