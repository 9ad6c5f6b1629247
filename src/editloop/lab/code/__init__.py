"""The world of a code agent: small functions, the requests of those who want them changed, and their tests.

`language` says what a function reads like, `behaviour` what it does and by which tests that is seen, `faults`
how it goes wrong, `tasks` what is asked of it, and `world` makes a domain of the lab from all of them.
"""
