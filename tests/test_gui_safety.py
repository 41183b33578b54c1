"""The page lets in nobody without its token, answers no other site, shows nothing outside the project, and hands nothing to a shell."""

from __future__ import annotations

import os
import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from gui_client import Page, serving, wait_for, write_particles

import aurefine
from aurefine.cli.main import main
from aurefine.errors import InputError
from aurefine.project.project import Project
from aurefine.web import server
from aurefine.web.folder import Folder, Missing, Outside


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a secret beside it."""
    folder = tmp_path / "project"
    (folder / "in").mkdir(parents=True)
    (tmp_path / "secret.txt").write_text("secret")
    (folder / ".hidden").write_text("secret")
    (folder / "out").symlink_to(tmp_path)
    (folder / "file.txt").symlink_to(tmp_path / "secret.txt")
    write_particles(folder / "in" / "particles.star")
    Project.create(folder, "5")
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def page(root: Path) -> Iterator[Page]:
    with serving(root) as served:
        yield served


def test_nobody_gets_in_without_the_token(page: Page) -> None:
    for path in ("/", "/?token=wrong", "/static/app.js", "/api/project", "/api/file?path=in/particles.star"):
        assert page.get(path).status == 403, path
    page.headers["Cookie"] = f"{page.session.cookie}=wrong"
    assert page.get("/api/project").status == 403
    assert page.post("/api/form/run", {}).status == 403


def test_the_token_lets_one_browser_in_once(page: Page) -> None:
    first = page.session.token
    answer = page.get(f"/?token={first}")
    assert answer.status == 200 and "HttpOnly" in answer.headers["set-cookie"] and "SameSite=Strict" in answer.headers["set-cookie"]
    assert page.get(f"/?token={first}").status == 403
    assert page.tokens == [page.session.token] and page.session.token != first  # the next one is printed
    assert page.get(f"/api/project?token={page.session.token}").status == 403  # only the page itself takes it


def test_other_names_and_other_sites_are_refused(page: Page) -> None:
    page.enter()
    here = f"localhost:{page.port}"
    assert page.get("/api/project", Host="evil.example").status == 421
    assert page.get("/api/project", Host=f"127.0.0.1.evil.example:{page.port}").status == 421
    for host in ("evil@localhost", f"evil.example@{here}", "localhost/evil.example", "localhost?x", "localhost,evil.example", "localhost:x", ""):
        assert page.get("/api/project", Host=host).status == 421, host
    assert page.get("/api/project", Host="localhost:1234").status == 200  # another port: ssh -L
    assert page.get("/api/project", Host="[::1]:1234").status == 200
    assert page.get("/api/project", Origin=f"http://{here}").status == 200
    for origin in ("http://evil.example", "null", f"https://{here}", "http://localhost:1", f"http://{here}.evil.example"):
        assert page.get("/api/project", Origin=origin).status == 403, origin
    assert page.ask("GET", "/api/project", headers={"Sec-Fetch-Site": "cross-site"}).status == 403
    assert page.ask("POST", "/api/form/check", {"type": "Select"}, {"Content-Type": "text/plain"}).status == 415  # what a plain form could send
    assert page.ask("POST", "/api/form/check", {"type": "x" * (2 << 20)}).status == 413
    assert page.ask("DELETE", "/api/project").status == 405


def test_answers_forbid_scripts_from_elsewhere_and_frames(page: Page) -> None:
    headers = page.enter().get("/").headers
    assert "script-src 'self'" in headers["content-security-policy"] and "frame-ancestors 'none'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"


@pytest.mark.parametrize("name", [
    "../secret.txt", "in/../../secret.txt", "/etc/passwd", "out/secret.txt", "file.txt", ".hidden", "in/../.hidden", "~/x", "", "in/\0x", "..",
    ".Nodes/x",
])  # fmt: skip
def test_no_name_leads_out_of_the_project(root: Path, name: str) -> None:
    with pytest.raises((Outside, Missing)):
        Folder(root).file(name)


def test_no_request_shows_a_file_outside_the_project(page: Page) -> None:
    page.enter()
    for path in (
        "/api/file?path=../secret.txt", "/api/file?path=file.txt", "/api/file?path=out/secret.txt", "/api/file?path=/etc/passwd",
        "/api/file?path=.hidden", "/api/star?path=file.txt", "/api/thumbnail?image=1@/etc/passwd", "/api/thumbnail?image=1@out/secret.txt",
        "/api/browse?type=Select&key=fn_data&under=..", "/api/browse?type=Select&key=fn_data&under=out",
        "/static/../app.py", "/static/%2e%2e/app.py", "/api/job/../../secret.txt", "/api/job/out/secret.txt/log",
    ):  # fmt: skip
        answer = page.get(path)
        assert answer.status in (400, 403, 404, 405) and b"secret\n" not in answer.body and answer.body != b"secret", path
    names = [entry["name"] for entry in page.get("/api/browse?type=Select&key=fn_data").json["entries"]]
    assert "in" in names and not {"out", "file.txt", ".hidden"} & set(names)


def test_a_job_that_is_a_link_to_elsewhere_is_left_alone(page: Page, root: Path) -> None:
    from aurefine.project.pipeline import Process

    (root / "Refine3D").mkdir()
    (root.parent / "elsewhere").mkdir()
    (root / "Refine3D" / "job001").symlink_to(root.parent / "elsewhere")
    with Project.open(root).edit("a test") as pipeline:
        pipeline.add_process(Process("Refine3D/job001/", "None", "relion.refine3d", "Succeeded"), 10)
    page.enter()
    assert page.post("/api/job/Refine3D/job001/note", {"text": "x"}).status == 403
    assert page.post("/api/job/Refine3D/job001/delete", {"with": []}).status == 403
    assert page.get("/api/job/Refine3D/job001/refinement").status == 403
    assert list((root.parent / "elsewhere").iterdir()) == []


@pytest.mark.parametrize("text", ["x; touch pwned", "$(touch pwned)", "`touch pwned` | touch pwned", "-o pwned"])
def test_no_field_reaches_a_shell(page: Page, root: Path, text: str) -> None:
    page.enter()
    named = {"fn_data": text, "do_select_values": "Yes"}
    for values in (named, {"fn_data": "in/particles.star", "do_select_values": "Yes", "select_label": text}):
        page.post("/api/form/run", {"type": "Select", "values": values, "schedule": True, "alias": text})
    column = {"fn_data": "in/particles.star", "do_select_values": "Yes", "select_label": text.replace(" ", "${IFS}")}
    job = page.post("/api/form/run", {"type": "Select", "values": column}).json.get("job")
    if job:
        wait_for(page, job, "Succeeded", "Failed")
    assert not list(root.rglob("pwned*"))


def test_values_with_line_breaks_cannot_break_the_files_of_a_job(page: Page) -> None:
    page.enter()
    for value in ("a\ndata_x", "a\rb", "a\0b"):
        assert page.post("/api/form/check", {"type": "Select", "values": {"fn_data": value}}).status == 400
    assert page.post("/api/form/check", {"type": "Select", "values": {"fn_data": 3}}).status == 400
    assert page.ask("POST", "/api/form/check", ["no object"]).status == 400


def test_two_pages_on_one_machine_do_not_share_a_session(page: Page, root: Path) -> None:
    page.enter()
    with serving(root) as other:
        other.headers.update(page.headers)
        assert page.session.cookie != other.session.cookie and other.get("/api/project").status == 403


def test_every_file_of_the_page_is_in_the_package_with_the_licences_of_what_others_wrote() -> None:
    top = Path(aurefine.__file__).parent.parent
    if not (top / "pyproject.toml").is_file():
        pytest.skip("needs the sources: this is an installed package")
    settings = tomllib.loads((top / "pyproject.toml").read_text())
    packed = {path for pattern in settings["tool"]["setuptools"]["package-data"]["aurefine.web"] for path in (top / "aurefine/web").glob(pattern)}
    there = {path for path in (top / "aurefine/web/static").rglob("*") if path.is_file()}
    assert there and there <= packed
    licensed = {path.parent for pattern in settings["project"]["license-files"] for path in top.glob(pattern)}
    assert {path.parent for path in there if "vendor" in path.parts} <= licensed


def test_the_page_listens_on_the_loopback_address_only() -> None:
    with server.bind(0) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        listener.listen()
        with pytest.raises(InputError, match="in use"):
            server.bind(listener.getsockname()[1])
    assert socket.inet_aton(server.ADDRESS)[0] == 127


def test_without_a_project_the_page_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["gui"]) == 2
    assert "no RELION project" in capsys.readouterr().err and os.listdir(tmp_path) == []
