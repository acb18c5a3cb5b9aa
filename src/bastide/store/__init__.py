"""State that survives: one port, SQLite embedded behind it, PostgreSQL to come as a second driver."""

from bastide.store.journal import Journal
from bastide.store.port import Event, LogLine, Row, Stale, Store, Taken, Transaction, View
from bastide.store.sqlite import SqliteStore

__all__ = ["Event", "Journal", "LogLine", "Row", "SqliteStore", "Stale", "Store", "Taken", "Transaction", "View"]
