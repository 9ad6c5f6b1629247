"""The HTTP side of the server: routes, request schemas, middleware, metrics."""
