"""Runs in the sandbox: does a program pass the assertions that were written for it?

This file imports nothing of groundup. Tests call the program, so both run in one process, and the
program may change anything in it. Therefore

- each test has a nonce, which is returned once the test's last statement has run: neither the end
  of the process nor a forged answer holds one;
- everything that is called after the program has begun is bound before, so the program cannot
  replace it, and what it sets in the module `builtins` is not seen by tests;
- tests are in no file, where the program could read what they expect;
- the sandbox refuses functions that trace or monitor, which could skip an assertion.

Not prevented are a value that claims to equal every other, a name of the program that hides a
builtin from the tests (it may be required, such as a `sum` of its own), replacing a library's
function that a test uses, and reading the nonces from the frames of this module.
"""

from __future__ import annotations

import ast
import builtins
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any


def answer(question: Mapping[str, Any]) -> dict[str, Any]:
    """The nonces of the tests that pass; `tests` are pairs of a test and its nonce.

    `programs` are the candidates for the program.
    """
    program = _last_definition(question["programs"])
    module = sys.modules["program"] = ModuleType("program")
    parse, run, own, names = compile, exec, dict(vars(builtins)), vars(module)
    passed = list[str]()
    try:
        # 0 and True: without this module's `annotations`.
        run(parse(program, "program", "exec", 0, True), names)
    except BaseException:  # the program may raise anything, including SystemExit
        return {"passed": passed}
    for test, nonce in question["tests"]:
        try:
            code = parse(test.encode(errors="replace"), "test", "exec", 0, True)
            run(code, {**names, "__builtins__": own})
        except BaseException:
            continue
        passed.append(nonce)
    return {"passed": passed}


def _last_definition(programs: Sequence[str]) -> bytes:
    """The last that defines a function or a class, else the last: an example may follow it."""
    found = [program.encode(errors="replace") for program in programs]
    return next(filter(_defines, reversed(found)), found[-1])


def _defines(program: bytes) -> bool:
    try:
        parsed = ast.parse(program).body
    except Exception:  # not Python, or nested too deeply
        return False
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return any(isinstance(one, kinds) for one in parsed)
