"""The promises of the README: one command sets up a cloud, and the tour runs as written."""

import re
import sqlite3

import pytest

from tests.demo.checkout import Checkout

pytestmark = [pytest.mark.libvirt, pytest.mark.slow]


def test_one_command_sets_up_a_cloud(checkout: Checkout) -> None:
    output = checkout.run("make demo")
    for text in ("hello  running", "kowabunga: proof=", "gRPC and REST", "admin key", "Next:"):
        assert text in output
    assert oct((checkout.folder / ".demo" / "env").stat().st_mode & 0o777) == "0o600"
    assert oct((checkout.folder / ".demo" / "admin.key").stat().st_mode & 0o777) == "0o600"


def test_the_tour_of_the_readme_runs_as_written(checkout: Checkout) -> None:
    tour = (checkout.folder / "README.md").read_text().partition("## A ten-minute tour")[2]
    script = "\n".join(re.findall(r"```sh\n(.*?)```", tour, re.DOTALL))
    python = re.search(r"```python\n(.*?)```", tour, re.DOTALL)
    assert python is not None
    output = checkout.run(f"{script}\npython3 - <<'END'\n{python[1]}END\n")
    assert "refused, with each host's reason" in output
    assert "project shop is gone" in output


def test_the_console_shows_output_takes_keys_and_is_left_by_a_key(checkout: Checkout) -> None:
    code = checkout.console("hello", prompt="kowabunga: proof=", line="echo $((6 * 7))-here", response="42-here")
    assert code == 0


def test_a_second_make_demo_changes_nothing(checkout: Checkout) -> None:
    before = checkout.run(". .demo/env; .venv/bin/kowactl instance list -o json")
    pids = checkout.pids()
    checkout.run("make demo")
    assert checkout.pids() == pids
    assert checkout.run(". .demo/env; .venv/bin/kowactl instance list -o json") == before


def test_a_demo_comes_back_after_all_its_processes_are_killed(checkout: Checkout) -> None:
    all_pids = [str(pid) for pids in checkout.pids().values() for pid in pids]
    checkout.run(f"kill -9 {' '.join(all_pids)}")
    output = checkout.run("make demo")
    assert "hello  running" in output


def test_make_demo_runs_a_pulled_version_and_its_migration(checkout: Checkout) -> None:
    versions = checkout.folder / "server/kahuna/store/migrations/versions"
    newest = max(path.name[:4] for path in versions.glob("[0-9]*.py"))
    pulled = versions / "9999_pulled.py"
    pulled.write_text(
        f"from alembic import op\nimport sqlalchemy as sa\nrevision, down_revision = '9999', '{newest}'\n"
        "def upgrade() -> None:\n    op.create_table('pulled', sa.Column('id', sa.Integer()))\n"
    )
    before, ids = checkout.pids(), checkout.ids_by_kind()
    checkout.run("make demo")
    after = checkout.pids()
    with sqlite3.connect(checkout.folder / ".demo/kahuna/kahuna.db") as database:
        assert database.execute("SELECT version_num FROM alembic_version").fetchall() == [("9999",)]
    assert after.pop("kahuna") != before.pop("kahuna")
    assert after == before
    assert checkout.ids_by_kind() == ids


def test_make_down_leaves_nothing(checkout: Checkout) -> None:
    checkout.run("make -s down")
    assert checkout.run("make -s leftovers") == "nothing is left\n"
