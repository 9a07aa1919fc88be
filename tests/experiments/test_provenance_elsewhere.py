"""What a result depends on, on systems and in folders of another kind."""

import subprocess

from metarl.experiments.provenance import git_commit, provenance


def test_a_system_without_affinities_loses_no_result(monkeypatch):
    monkeypatch.delattr("os.sched_getaffinity", raising=False)
    monkeypatch.setattr("os.cpu_count", lambda: 7)
    assert provenance()["machine"]["cores"] == 7


def test_a_package_in_the_environment_of_another_project_has_no_commit(tmp_path):
    """Nor has the project's commit anything to say of it."""
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    package = tmp_path / ".venv" / "metarl"
    package.mkdir(parents=True)
    for name in (tmp_path / "own.py", package / "core.py"):
        name.write_text("x = 1\n")
    (tmp_path / ".gitignore").write_text(".venv\n")
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "first"]):
        subprocess.run([*git, *command], check=True)
    assert git_commit(package) is None
    commit = git_commit(tmp_path)
    assert commit is not None
    assert len(commit) == 40
    (tmp_path / "own.py").write_text("x = 2\n")
    assert git_commit(tmp_path) == commit + "+"
