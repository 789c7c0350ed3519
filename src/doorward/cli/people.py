"""`doorward people`: who is known."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import quote, urlencode

import typer

from doorward.cli.connection import DEFAULT_DATA, DataOption, call, every
from doorward.cli.output import JsonFlag, emit_json, guarded, say, table
from doorward.cli.records import found, show

_PATH = "/api/v1/people"
_IDENTITIES = "/api/v1/identities"
_SOURCES = "/api/v1/sources"
Issuer = Annotated[str, typer.Option(help="The identity provider, exactly as its tokens name it (`iss`).")]
Subject = Annotated[str, typer.Option(help="Whom it means, exactly as its tokens say it (`sub`).")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    people = typer.Typer(name="people", help="Users, services and agents.", invoke_without_command=True)
    people.callback()(_default)
    people.command("list")(list_people)
    people.command("show")(show_person)
    people.command("sign-out")(sign_out)
    people.command("enrol")(enrol)
    people.command("sessions")(list_sessions)
    people.command("end-session")(end_session)
    people.command("identities")(list_identities)
    people.command("link")(link_identity)
    people.command("unlink")(unlink_identity)
    people.command("sources")(list_sources)
    people.command("confirm")(confirm_source)
    app.add_typer(people)


@guarded
def _default(context: typer.Context, *, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    if context.invoked_subcommand is None:
        _print(every(data, _PATH), as_json=as_json)


@guarded
def list_people(*, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    """List users, services and agents."""
    _print(every(data, _PATH), as_json=as_json)


@guarded
def show_person(name: str, *, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    """Show everything known of one: dana, or User::"dana"."""
    show(found(data, _PATH, name), as_json=as_json)


@guarded
def list_identities(*, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    """List which identities of identity providers sign in as whom."""
    links = every(data, _IDENTITIES)
    if as_json:
        emit_json(links)
        return
    table(
        ("issuer", "subject", "signs in as"), [(at["issuer"], at["subject"], at["principal"]) for at in links]
    )


@guarded
def link_identity(
    name: str,
    *,
    issuer: Issuer,
    subject: Subject,
    as_json: JsonFlag = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """Let an identity sign in as somebody known: dana, or Service::"etl". It must not be another's."""
    body = {"issuer": issuer, "subject": subject, "principal": name}
    _print_link(call(data, "POST", _IDENTITIES, body), "signs in as", as_json=as_json)


@guarded
def unlink_identity(
    *, issuer: Issuer, subject: Subject, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA
) -> None:
    """Take a link away at once; streams of its tokens end within a second."""
    gone = call(data, "DELETE", f"{_IDENTITIES}?{urlencode({'issuer': issuer, 'subject': subject})}")
    _print_link(gone, "no longer signs in as", as_json=as_json)


@guarded
def list_sources(*, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    """List where people come from, how fresh it is, and what is held back."""
    sources = call(data, "GET", _SOURCES)
    if as_json:
        emit_json(sources)
        return
    rows = [
        (
            one["name"],
            ", ".join(f"{count} {kind}" for kind, count in sorted(one["objects"].items())),
            one.get("age"),
            one.get("held_back"),
            one.get("problem"),
        )
        for one in sources
    ]
    table(("source", "provisions", "seconds ago", "held back", "problem"), rows)


@guarded
def confirm_source(name: str, *, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    """Let a followed directory take out what it held back: ldap:corp."""
    done = call(data, "POST", f"{_SOURCES}/{quote(name, safe='')}/confirm")
    if as_json:
        emit_json(done)
        return
    say(f"{name} takes out what it held back ({done['held_back']}) with its next reading.")


def _print_link(link: dict[str, Any], says: str, *, as_json: bool) -> None:
    if as_json:
        emit_json(link)
        return
    say(f"{link['subject']} of {link['issuer']} {says} {link['principal']}.")


@guarded
def sign_out(
    name: str,
    *,
    mfa_only: Annotated[bool, typer.Option("--mfa-only", help="Only ask for MFA again.")] = False,
    as_json: JsonFlag = False,
    data: DataOption = DEFAULT_DATA,
) -> None:
    """End every token and console session of one, within a second; API keys are revoked singly."""
    uid = found(data, _PATH, name)["uid"]
    answer = call(data, "POST", f"{_PATH}/{quote(uid, safe='')}/sign-out", {"mfa_only": mfa_only})
    if as_json:
        emit_json(answer)
        return
    say(f"{uid} is signed out{' of MFA' if mfa_only else ''}.")


@guarded
def enrol(name: str, *, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    """Print a link with which a user enrols a passkey or an authenticator app; it works once."""
    answer = call(data, "POST", "/api/v1/enrol-links", {"user": name})
    if as_json:
        emit_json(answer)
        return
    say(answer["url"])
    say(f"For {answer['principal']} alone; works once, for {answer['expires_in'] // 60} minutes.")


@guarded
def list_sessions(*, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    """List who is signed in to the console."""
    found = call(data, "GET", "/api/v1/sessions")
    if as_json:
        emit_json(found)
        return
    rows = [(s["id"], s["principal"], s["method"], s["zone"], s["created"], s["last_seen"]) for s in found]
    table(("session", "who", "by", "zone", "since", "last seen"), rows)


@guarded
def end_session(session: str, *, as_json: JsonFlag = False, data: DataOption = DEFAULT_DATA) -> None:
    """End one console session at once."""
    answer = call(data, "DELETE", f"/api/v1/sessions/{quote(session, safe='')}")
    if as_json:
        emit_json(answer)
        return
    say(f"Session {session} is ended.")


def _print(people: list[dict[str, Any]], *, as_json: bool) -> None:
    if as_json:
        emit_json(people)
        return
    rows = [
        (
            p["kind"],
            p["name"],
            "yes" if p["active"] else "no",
            ", ".join(p["roles"]),
            ", ".join(p["projects"]),
            ", ".join(p["purposes"]),
            p.get("owner"),
        )
        for p in people
    ]
    table(("kind", "name", "active", "roles", "projects", "purposes", "owner"), rows)
