"""`forcing bench page`: the tables of a Markdown page written anew from the reports there are; the prose stays.

A table stands between the marks `<!-- table: NAME -->` and `<!-- end -->`, each on a line of its own.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from forcing.eval.ablation_table import ablation_table
from forcing.eval.data_table import data_table
from forcing.eval.faults_picture import draw_faults
from forcing.eval.faults_tables import faults_table, filter_table
from forcing.eval.files import replacing
from forcing.eval.imagine_picture import draw_imagine
from forcing.eval.imagine_table import imagine_table
from forcing.eval.manipulation_table import manipulation_table
from forcing.eval.ogbench_table import ogbench_table
from forcing.eval.plan_tables import obstacles_table, planning_table, rolling_table, search_table
from forcing.eval.score_table import plans_table, score_table
from forcing.eval.search_picture import draw_search
from forcing.eval.serve_table import serve_table
from forcing.eval.spread_picture import draw_spread
from forcing.eval.spread_table import spread_table
from forcing.eval.surprise_picture import draw_surprise
from forcing.eval.surprise_table import surprise_table

TABLES: Mapping[str, Callable[[Path], list[str]]] = {
    "maze2d": score_table,
    "plans": plans_table,
    "planning": planning_table,
    "search": search_table,
    "rolling": rolling_table,
    "obstacles": obstacles_table,
    "ablation": ablation_table,
    "ogbench": ogbench_table,
    "manipulation": manipulation_table,
    "faults": faults_table,
    "filter": filter_table,
    "spread": spread_table,
    "imagine": imagine_table,
    "surprise": surprise_table,
    "serve": serve_table,
    "data": data_table,
}
PICTURES = (
    (draw_search, "search.png"),
    (draw_faults, "faults.png"),
    (draw_spread, "spread.png"),
    (draw_imagine, "imagine.png"),
    (draw_surprise, "surprise.png"),
)
MARKED = re.compile(r"^(<!-- table: (\S+) -->\n).*?^(<!-- end -->)$", re.MULTILINE | re.DOTALL)


def write_page(page: Path, results: Path) -> list[str]:
    """What was done, line by line. results: folder of the reports.

    The curves of the search, of faults, of spreads, of what is imagined and of what surprises are drawn beside the
    page, in pictures/, if there are any. Raises ValueError if there is no such folder, or a mark names no table or
    begins one that does not end.
    """
    if not results.is_dir():
        raise ValueError(f"results {results} must be a folder of reports, there is none; the page stays as it is")
    text = page.read_text()
    names = re.findall(r"^<!-- table: (\S+) -->$", text, re.MULTILINE)
    unknown = [name for name in names if name not in TABLES]
    if unknown:
        raise ValueError(f"{page} marks a table {unknown[0]!r}; known are {', '.join(TABLES)}")
    closed = [match[1] for match in MARKED.findall(text)]
    if closed != names:
        raise ValueError(f"{page}: every mark <!-- table: NAME --> needs a line <!-- end --> after it")
    written = MARKED.sub(lambda match: f"{match[1]}{_block(TABLES[match[2]](results))}{match[3]}", text)
    with replacing(page) as beside:
        beside.write_text(written)
    said = [f"{page}: {len(names)} tables ({', '.join(names)})"]
    for draw, name in PICTURES:
        picture = page.parent / "pictures" / name
        if draw(results, picture):
            said.append(f"{picture}: drawn")
    return said


def _block(lines: list[str]) -> str:
    return "\n" + "\n".join(lines) + "\n\n"
