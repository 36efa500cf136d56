"""Where a PostgreSQL database is, and with what password one signs in: the environment's, or a Databricks token."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from retrieval.errors import ConfigurationError
from retrieval.extras import needs_extra
from retrieval.secrets import hide_secrets

_CONNECT_S = 5
_KEEP_ALIVE = {
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}


@dataclass(frozen=True, slots=True)
class Address:
    """A database: `dsn` as libpq takes it, what it leaves open being PG* variables; or a Lakebase database.

    `lakebase` names an instance, or an endpoint as `projects/…/branches/…/endpoints/…`: host, user and a password
    that lasts an hour are the workspace's to tell then, as far as `dsn` does not. `setting` is for messages.
    """

    dsn: str = ""
    lakebase: str | None = None
    setting: str = "retrieval.pgvector"


def connection_parameters(address: Address) -> Callable[[], dict[str, Any]]:
    """What makes the parameters of a new connection, with a password that is good now.

    Raises:
        ConfigurationError: if `dsn` cannot be read or holds a password, or the extra `postgres` is missing.
    """
    with needs_extra("postgres", f"{address.setting} (PostgreSQL)"):
        import psycopg
        from psycopg.conninfo import conninfo_to_dict
    try:
        said: dict[str, Any] = conninfo_to_dict(address.dsn)
    except psycopg.ProgrammingError as error:
        reason = " ".join(hide_secrets(str(error)).split())
        raise ConfigurationError(
            f"{address.setting}: {reason}. Write the database as host=… dbname=… user=… or postgresql://user@host/name."
        ) from error
    if "password" in said:
        raise ConfigurationError(
            f"{address.setting}: a password does not belong into a configuration. Take it out and set PGPASSWORD."
        )
    # Without a time limit of its own, a connection to where nobody answers takes minutes to fail.
    said = {"connect_timeout": str(_CONNECT_S), "application_name": "citeqa", **_KEEP_ALIVE, **said}
    if address.lakebase is None:
        return lambda: said
    from retrieval.postgres.lakebase import Lakebase

    lakebase = Lakebase(address.lakebase)
    return lambda: {**lakebase.parameters(with_host="host" not in said, with_user="user" not in said), **said}


def describe(parameters: dict[str, Any]) -> str:
    """The database as people name it: `citeqa at db.example.com`; nothing secret."""
    said = {
        name: parameters.get(name) or os.environ.get(variable)
        for name, variable in (("host", "PGHOST"), ("dbname", "PGDATABASE"), ("user", "PGUSER"))
    }
    return f"{said['dbname'] or said['user'] or 'the default database'} at {said['host'] or 'localhost'}"
