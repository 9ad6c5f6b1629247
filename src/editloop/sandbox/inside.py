"""The program that runs inside a sandbox. Its text is given to the interpreter there; nothing imports it.

It knows nothing of this package, and needs the standard library alone. Whatever the code that it runs does to
this process, the worst that can come of it is a wrong answer about that code.
"""

from __future__ import annotations

import json
import os
import resource
import sys


def main() -> None:
    """Read a request, run it within its limits, and answer in one line of JSON."""
    request = json.load(sys.stdin)
    for name, most in request["limits"].items():
        kind = getattr(resource, name)
        hard = resource.getrlimit(kind)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))
    # The answer has a descriptor of its own: what the code prints goes nowhere.
    answer = os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nowhere, descriptor)
    sys.setrecursionlimit(1000)
    found = run(request["code"], request["function"], request["calls"], request["longest"])
    os.write(answer, json.dumps(found).encode())
    # Not `sys.exit`: threads and exit handlers of the code would be waited for.
    os._exit(0)


def run(code: str, function: str, calls: list[str], longest: int) -> dict[str, object]:
    """Run the code, then the calls, and return what is answered."""
    names: dict[str, object] = {"__name__": "__main__"}
    try:
        exec(compile(code, "<program>", "exec"), names)
    except BaseException as error:  # SystemExit, too: it has not run to its end
        return {"status": "failed", "detail": described(error)}
    if not function:
        return {"status": "done"}
    called = names.get(function)
    if called is None:
        return {"status": "failed", "detail": f"no function {function}"}
    # The `repr` of numbers that are not finite is a name.
    numbers = {"inf": float("inf"), "nan": float("nan")}
    return {
        "status": "done",
        "values": [value_of(called, eval(arguments, dict(numbers)))[:longest] for arguments in calls],
    }


def value_of(called: object, arguments: tuple[object, ...]) -> str:
    """Return the `repr` of what a call gives, or the name of its exception."""
    try:
        return repr(called(*arguments))  # type: ignore[operator]
    except BaseException as error:
        return f"raised {type(error).__name__}"


def described(error: BaseException) -> str:
    """Return an exception in one line."""
    try:
        return " ".join(f"{type(error).__name__}: {error}".split())[:200]
    except BaseException:  # its text is the code's own
        return type(error).__name__


if __name__ == "__main__":
    main()
