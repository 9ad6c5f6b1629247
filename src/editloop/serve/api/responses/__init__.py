"""`/v1/responses`, OpenAI's newer API, by way of chat completions, so that every backend can answer it.

A request becomes one for a chat completion (`schema`, `items`, `earlier`), which the same completion service
answers, and the completion becomes a response or its events (`output`, `routes`).
"""
