"""The report of a bench that is made of many entries: each is written as soon as it is done, and not measured twice."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forcing.eval.report import Report, write_report


class Records:
    """Entries of one report file, in the order of measuring.

    An entry is known by its `row`. What else must agree for it to count, such as weights and episodes, is `wanted`.
    """

    def __init__(self, path: Path | None, wanted: Mapping[str, Any], say: Callable[[str], None]) -> None:
        """path: of the report, None to keep none. Entries there that do not agree with `wanted` are dropped at the
        first write. Raises ValueError if the file is no report of several entries."""
        self.path, self._wanted = path, json.loads(json.dumps(wanted))
        found = [] if path is None or not path.exists() else _read(path)
        self.entries = [entry for entry in found if self._agrees(entry, self._wanted)]
        if len(self.entries) < len(found):
            say(f"{path}: {len(found) - len(self.entries)} rows are of other weights or episodes and will be replaced")
        if self.entries:
            say(f"{path}: {len(self.entries)} rows are there already")

    def find(self, row: str, **settings: Any) -> Report | None:
        """The entry of this row, measured with these settings; None if there is none."""
        wanted = json.loads(json.dumps(settings))
        return next((e for e in self.entries if e.get("row") == row and self._agrees(e, wanted)), None)

    def __getitem__(self, row: str) -> Report:
        """Raises KeyError if there is no such row."""
        found = self.find(row)
        if found is None:
            raise KeyError(row)
        return found

    def add(self, entry: Report) -> None:
        """Takes the place of an entry of the same row, or the last one; then the file is written."""
        rows = [other.get("row") for other in self.entries]
        if entry["row"] in rows:
            self.entries[rows.index(entry["row"])] = entry
        else:
            self.entries.append(entry)
        if self.path is not None:
            write_report(self.entries, self.path)

    @staticmethod
    def _agrees(entry: Mapping[str, Any], wanted: Mapping[str, Any]) -> bool:
        return all(name in entry and entry[name] == value for name, value in wanted.items())


def _read(path: Path) -> list[Report]:
    try:
        entries = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"report {path} is no JSON: {error}; choose another file or remove it") from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"report {path} must be a list of entries; choose another file or remove it")
    return entries
