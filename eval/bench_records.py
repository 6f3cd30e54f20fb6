"""The report of a bench that is made of many entries: each is written as soon as it is done, and not measured twice."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from forcing.eval.report import Report, write_report


class Records:
    """Entries of one report file, in the order of measuring.

    An entry is known by its `row`. What all have in common, such as weights and episodes, is `wanted`. An entry that is
    a copy says of which row: `same_as`.
    """

    def __init__(self, path: Path | None, wanted: Mapping[str, Any], say: Callable[[str], None], needs: str) -> None:
        """path: of the report, None to keep none. needs: what every entry of this bench has.

        Raises ValueError if the file is no report of several entries, or if one of them is of another bench or does not
        agree with `wanted`: a table of them would compare what cannot be compared.
        """
        self.path = path
        self.entries = [] if path is None or not path.exists() else _read(path)
        for entry in self.entries:
            if needs not in entry:
                raise ValueError(
                    f"report {path} is of another bench, row {entry.get('row')!r} has no {needs}; name another"
                )
            for name, value in json.loads(json.dumps(wanted)).items():
                if entry.get(name) != value:
                    has = f"report {path} has {name} {entry.get(name)!r} in row {entry.get('row')!r}"
                    raise ValueError(f"{has}, this run {value!r}; ask for the same, or name another report")
        if self.entries:
            say(f"{path}: {len(self.entries)} rows are there already")

    def find(self, row: str, **settings: Any) -> Report | None:
        """The entry of this row, measured with these settings; None if there is none."""
        wanted = json.loads(json.dumps(settings))
        return next((e for e in self.entries if e.get("row") == row and self._agrees(e, wanted)), None)

    def measured(self, **facts: Any) -> Report | None:
        """The first entry of which all these facts hold and that is no copy of another; None if there is none."""
        wanted = json.loads(json.dumps(facts))
        return next((e for e in self.entries if self._agrees(e, wanted) and e.get("same_as") is None), None)

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
