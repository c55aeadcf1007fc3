#!/usr/bin/env bash
# Packages:  pydantic 2.14.4, pydantic-core 2.50.5.
# Behaviour: validating a dataclass asks isinstance() first, and takes a KeyboardInterrupt in it for "no". Where the dataclass has
#            an abstract base (abc.ABC), isinstance() runs Python code, and a Ctrl-C that arrives there is lost: the
#            KeyboardInterrupt is dropped, and validation goes on with a dictionary, or refuses a valid instance.
# Expected:  KeyboardInterrupt reaches the caller.
# Seen:      with a SIGINT during isinstance(), {"n": 2} was validated as if nothing had happened and an instance of a subclass
#            was refused with a ValidationError; plain isinstance() raised KeyboardInterrupt. With pydantic 2.11.10 plain models
#            do the same; in 2.14.4 their isinstance() is no Python code any more, so that no signal can arrive there.
#            2026-11-27, Linux on x86-64, Python 3.11.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -qq --disable-pip-version-check pydantic==2.14.4

"$folder/venv/bin/python" - <<'EOF'
import signal
from abc import ABC
from dataclasses import dataclass

from pydantic import TypeAdapter


class Base(ABC):
    pressed = False

    @classmethod
    def __subclasshook__(cls, other):
        if Base.pressed:  # stands for Ctrl-C in the moment in which isinstance() runs
            signal.raise_signal(signal.SIGINT)
        return NotImplemented


@dataclass
class Board(Base):
    n: int


class Larger(Board):
    pass


def outcome(call):
    Base.pressed = True
    try:
        return repr(call())
    except BaseException as error:
        return type(error).__name__
    finally:
        Base.pressed = False


signal.signal(signal.SIGINT, signal.default_int_handler)
adapter, board = TypeAdapter(Board), Larger(1)
seen = [outcome(lambda: isinstance({}, Board)), outcome(lambda: adapter.validate_python({"n": 2}))]
seen.append(outcome(lambda: adapter.validate_python(board)))
print("isinstance():", seen[0], "| validating a dictionary:", seen[1], "| validating an instance:", seen[2])
assert seen == ["KeyboardInterrupt", "Board(n=2)", "ValidationError"], "the behaviour has changed"
EOF
