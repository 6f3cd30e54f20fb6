"""`forcing policies`: what is shipped and what was trained here."""

from pathlib import Path

from rich import box
from rich.table import Table

from forcing.policy.policy import FILE_NAME, Policy, load_policy, shipped_policies


def policy_table(runs: Path) -> Table:
    """One row a policy: shipped ones, then those in folders below `runs`. A damaged one is shown with its fault."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("policy", "task", "size", "score", "training"):
        table.add_column(column, no_wrap=column == "policy", overflow="fold")  # names are there to be typed
    names = [*shipped_policies(), *(str(path.parent) for path in sorted(runs.glob(f"*/{FILE_NAME}")))]
    for name in names:
        try:
            table.add_row(name, *_row(load_policy(name)))
        except ValueError as error:
            table.add_row(name, "-", "-", "-", f"[red]{error}[/red]")
    return table


def _row(policy: Policy) -> tuple[str, str, str, str]:
    card = policy.card
    scores = ", ".join(f"{task} {score:.0f}" for task, score in card.get("scores", {}).items())
    trained = f"{card.get('data', '?')}, {card.get('data_steps', '?')} steps, {card.get('minutes', '?')} min"
    return str(card.get("task", "?")), f"{policy.parameters / 1e6:.2f} M", scores or "not scored", trained
