"""`citeqa memory`: the conversations that are kept, to look at and to have forgotten."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from program.commands.options import configured, fail, read_settings

if TYPE_CHECKING:
    from program.memory.conversations import ConversationStore

_MOST_MESSAGES = 1000


@click.group()
def memory() -> None:
    """Look at kept conversations, and forget them.

    Example: citeqa memory list --user ann@example.com
    """


@memory.command(name="list")
@configured
@click.option("--user", metavar="NAME", help="Whose conversations. Default: everybody's.")
@click.option("--json", "as_json", is_flag=True, help="The same as JSON on stdout.")
def list_(
    config: str | None, overrides: tuple[str, ...], debug: bool, user: str | None, as_json: bool
) -> None:
    """List conversations, the latest first.

    Example: citeqa memory list --json
    """
    store = _open(config, overrides)

    import json

    found = store.conversations(user)
    if as_json:
        rows = [
            {
                "user": one.conversation.user,
                "id": one.conversation.id,
                "messages": one.messages,
                "updated_at": one.updated_at.isoformat(),
            }
            for one in found
        ]
        click.echo(json.dumps(rows, ensure_ascii=False, indent=2))
        return
    for one in found:
        who = one.conversation.user or "(nobody)"
        click.echo(
            f"{one.updated_at:%Y-%m-%d %H:%M}  {one.messages:>4} messages  {who}  {one.conversation.id}"
        )
    if not found:
        click.echo("No conversation is kept.", err=True)


@memory.command()
@configured
@click.argument("conversation")
@click.option("--user", metavar="NAME", default="", help="Whose it is. Default: nobody's in particular.")
def show(config: str | None, overrides: tuple[str, ...], debug: bool, conversation: str, user: str) -> None:
    """Show the messages of a conversation.

    Example: citeqa memory show trip-to-kyoto --user ann@example.com
    """
    store = _open(config, overrides)

    from program.memory.conversations import Conversation

    messages = store.messages(Conversation(user, conversation), _MOST_MESSAGES)
    if not messages:
        fail(_unknown(user, conversation))
    click.echo("\n\n".join(f"{message.role}: {message.text}" for message in messages))


@memory.command()
@configured
@click.argument("conversation", required=False)
@click.option("--user", metavar="NAME", default="", help="Whose it is. Default: nobody's in particular.")
@click.option("--all", "everything", is_flag=True, help="All conversations of the user.")
def delete(
    config: str | None,
    overrides: tuple[str, ...],
    debug: bool,
    conversation: str | None,
    user: str,
    everything: bool,
) -> None:
    """Forget a conversation, or all of a user's.

    Example: citeqa memory delete --all --user ann@example.com
    """
    if (conversation is None) != everything:
        fail("Error: name a conversation, or --all for every one of the user's.")
    deleted = _open(config, overrides).delete(user, conversation)
    if conversation is not None and not deleted:
        fail(_unknown(user, conversation))
    click.echo(f"{deleted} forgotten")


@memory.command()
@configured
def expire(config: str | None, overrides: tuple[str, ...], debug: bool) -> None:
    """Forget the conversations that have expired. A server does so, too, once an hour.

    Example: citeqa memory expire --set memory.expire_days=7
    """
    click.echo(f"{_open(config, overrides).expire()} forgotten")


def _open(config: str | None, overrides: tuple[str, ...]) -> ConversationStore:
    settings = read_settings(config, overrides)

    from program.memory.opening import open_store

    store = open_store(settings.memory)
    if store is None:
        fail(
            "Error: no conversation is kept. Say where to keep them: memory.store, such as sqlite:///build/memory.db"
        )
    return store


def _unknown(user: str, conversation: str) -> str:
    whose = f"{user} has no conversation" if user else "There is no conversation without a user"
    return f"Error: {whose} '{conversation}'. citeqa memory list shows which there are."
