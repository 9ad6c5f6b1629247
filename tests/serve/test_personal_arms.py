"""Arms of one user: nobody else gets them, and they go when the user is forgotten."""

from __future__ import annotations

from pathlib import Path

from serving import error, run, serving, sqlite

from small_run import make_run


def test_only_its_user_gets_an_arm_of_ones_own(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", ("sft", "dpo"))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, arms=("a@1",)) as service:
            body = {"run": str(folder.path), "policies": ["sft"], "user": "ada"}
            promoted = (await service.http.post("/v1/arms", json=body)).json()
            assert promoted["arms"][0] == "a@1"
            (own,) = promoted["arms"][1:]
            key = service.loop.scopes.key("ada")
            assert service.loop.bandit.state.owners == {own: key}
            played = {user: set() for user in ("ada", "bob", None)}
            for user, arms in played.items():
                for _ in range(12):
                    answer = await service.ask(user=user)
                    arms.add(answer.headers["X-EditLoop-Policy"])
                    await service.edit(answer.json()["id"], "Another text.")
            assert played == {"ada": {"a@1", own}, "bob": {"a@1"}, None: {"a@1"}}
            # Her decisions have a scope of their own, in which both arms are compared by her edits alone.
            assert service.loop.bandit.state.tally(key, own).observed > 0
            assert service.loop.bandit.state.tally("", own).observed == 0

            # It is as if it were not there for others, by either name, and no list shows it.
            for name in (own, "sft"):
                assert (await service.ask(user="ada", model=name)).headers["X-EditLoop-Policy"] == own
                refused = error(await service.ask(user="bob", model=name), 404, "model_not_found")
                assert own not in refused["message"].partition("; ")[2]  # of the names that there are
            names = [each["id"] for each in (await service.http.get("/v1/models")).json()["data"]]
            assert own not in names and "a@1" in names
            rows = (await service.http.get("/v1/arms")).json()["data"]
            assert {row["arm"]: row["personal"] for row in rows}[own] is True
            beliefs = (await service.http.get("/v1/overview", params={"user": "ada"})).json()["beliefs"]
            assert {row["arm"] for row in beliefs["arms"]} == {"a@1", own}

            # Another one takes its place; the same for everybody is everybody's.
            body["policies"] = ["dpo"]
            other = (await service.http.post("/v1/arms", json=body)).json()["arms"]
            assert own not in other and len(other) == 2
            del body["user"]
            shared = (await service.http.post("/v1/arms", json=body)).json()["arms"]
            assert shared == other and not service.loop.bandit.state.owners
            body["user"] = "ada"
            error(await service.http.post("/v1/arms", json=body), 409, "arm_shared")

    run(work())


def test_it_goes_with_its_user_and_survives_a_restart(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", ("sft",))

    async def work() -> None:
        url = sqlite(tmp_path)
        async with serving(url, tmp_path, arms=("a@1",)) as service:
            body = {"run": str(folder.path), "user": "ada"}
            own = (await service.http.post("/v1/arms", json=body)).json()["arms"][1]
            await service.ask(user="ada")
        async with serving(url, tmp_path, arms=()) as again:
            assert again.loop.bandit.state.owners == {own: again.loop.scopes.key("ada")}
            assert (await again.http.delete("/v1/users/ada")).status_code == 200
            assert again.loop.bandit.arms == ("a@1",) and not again.loop.bandit.state.owners
            assert (await again.ask(user="ada")).headers["X-EditLoop-Policy"] == "a@1"

    run(work())


def test_the_last_arm_for_everybody_stays(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run", ("sft",))

    async def work() -> None:
        async with serving(sqlite(tmp_path), tmp_path, arms=("a@1",)) as service:
            body = {"run": str(folder.path), "user": "ada"}
            assert (await service.http.post("/v1/arms", json=body)).status_code == 200
            error(await service.http.delete("/v1/arms/a@1"), 409, "last_arm")
            assert (await service.ask(user="bob")).headers["X-EditLoop-Policy"] == "a@1"

    run(work())
