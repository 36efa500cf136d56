"""What PostgreSQL's errors mean: which may be over soon, and what a person can do about the others."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval.secrets import hide_secrets

if TYPE_CHECKING:
    import psycopg

    from retrieval.postgres.address import Address

_BUSY = ("53300", "55P03")
_PASSING = ("08", "40", "57P", "57014", "53")
"""SQLSTATEs: broken connections, conflicts, a server that ends or begins, a statement that took too long, resources."""

_REFUSED = ("password", "authentication", "pg_hba", "does not exist", "ssl", "certificate")
"""Of errors while connecting, which bear no SQLSTATE: those that another attempt does not mend."""

_ADVICE = {
    "28": "Check the user and PGPASSWORD{lakebase}.",
    "3D000": "Check dbname=… and user=….",
    "42P01": "Make it: citeqa index --config …",
    "42501": "Have the owner grant it to this user.",
    "53100": "Free disk space there.",
}


def is_passing(error: psycopg.Error) -> bool | None:
    """None where another attempt is not worth making; else whether the server is only busy."""
    import psycopg

    state = error.sqlstate
    if state is None:
        if not isinstance(error, psycopg.OperationalError):
            return None
        return None if any(word in str(error).lower() for word in _REFUSED) else False
    if state in _BUSY:
        return True
    return False if state.startswith(_PASSING) and state != "53100" else None


def explain(error: psycopg.Error, address: Address | None = None) -> str:
    """What the server said, in one line without secrets, and what to do about it."""
    said = error.diag.message_primary or str(error) or type(error).__name__
    reason = " ".join(hide_secrets(said).split()).rstrip(".")
    advice = _advice(error, reason)
    lakebase = f", or {address.setting}.lakebase_instance" if address is not None else ""
    return f"{reason}. {advice.format(lakebase=lakebase)}".strip()


def _advice(error: psycopg.Error, reason: str) -> str:
    # While connecting, there is no SQLSTATE to go by.
    state = error.sqlstate or (
        "28" if "password" in reason else "3D000" if "does not exist" in reason else ""
    )
    return next((advice for prefix, advice in _ADVICE.items() if state.startswith(prefix)), "")
