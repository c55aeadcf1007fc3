"""`gram` commands, run in this process."""

import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from io import BytesIO, StringIO, TextIOWrapper
from unittest.mock import patch

from gram.server.cli.main import main


@dataclass(frozen=True)
class Ended:
    """What a command printed, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


def gram(*arguments: str, stdin: str = "") -> Ended:
    """Run a command as the `gram` script does. Most of the time of a process of its own would go into importing torch."""
    code: object = 0
    with (
        patch.multiple(sys, argv=["gram", *arguments], stdin=TextIOWrapper(BytesIO(stdin.encode()))),
        redirect_stdout(StringIO()) as stdout,
        redirect_stderr(StringIO()) as stderr,
    ):
        try:
            main()
        except SystemExit as ended:
            code = ended.code
        except Exception:
            code = traceback.format_exc()
    # As Python does at the end of a process: a message instead of a code is printed, and the code is 1.
    told = f"{code}\n" if isinstance(code, str) else ""
    return Ended(1 if told else int(str(code or 0)), stdout.getvalue(), stderr.getvalue() + told)
