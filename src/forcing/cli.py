"""The command line: which commands there are. Every command is a function, its options are the function's parameters.

Exit codes: 0 done, 1 failed, 2 wrong usage. What a command needs is imported when it runs, so that help comes at once.
"""

from collections.abc import Sequence

from tyro.extras import SubcommandApp

from forcing.commands import bench, data
from forcing.commands.calibrate import calibrate
from forcing.commands.generate import generate
from forcing.commands.policies import demo, evaluate, policies, serve
from forcing.commands.record import record
from forcing.commands.train import clone, train
from forcing.usage import command, run

app = SubcommandApp()
# Help lists them in this order.
command(app)(demo)
command(app)(generate)
command(app)(train)
command(app)(clone)
command(app)(calibrate)
command(app)(serve)
command(app, "eval")(evaluate)
command(app)(record)
command(app)(policies)
app.command(data.app, name="data")
app.command(bench.app, name="bench")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command that `arguments`, or the command line, name; leaves by SystemExit with 0, 1 or 2."""
    run(app, "A Diffusion Forcing planner behind an HTTP endpoint.", arguments)
