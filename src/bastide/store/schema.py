"""Numbered, forward migrations. A program refuses a schema newer than itself."""

from __future__ import annotations

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE resource (
            kind TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
            generation INTEGER NOT NULL, created INTEGER NOT NULL, modified INTEGER NOT NULL,
            status TEXT NOT NULL, tags BLOB NOT NULL, doc BLOB NOT NULL)""",
        """CREATE UNIQUE INDEX resource_name ON resource (kind, account, region, name)""",
        """CREATE INDEX resource_created ON resource (kind, account, region, created, name)""",
        """CREATE INDEX resource_status ON resource (kind, account, region, status, created, name)
            WHERE status <> ''""",
        """CREATE TABLE blob (id TEXT PRIMARY KEY, data BLOB NOT NULL) WITHOUT ROWID""",
        """CREATE TABLE history (
            id INTEGER PRIMARY KEY, kind TEXT NOT NULL, account TEXT NOT NULL, region TEXT NOT NULL, name TEXT NOT NULL,
            generation INTEGER NOT NULL, at INTEGER NOT NULL, event TEXT NOT NULL, request_id TEXT NOT NULL,
            status TEXT NOT NULL, tags BLOB NOT NULL, doc BLOB NOT NULL)""",
        """CREATE INDEX history_name ON history (kind, account, region, name, id)""",
        """CREATE TABLE token (
            account TEXT NOT NULL, operation TEXT NOT NULL, token TEXT NOT NULL, at INTEGER NOT NULL,
            digest BLOB NOT NULL, answer BLOB NOT NULL, PRIMARY KEY (account, operation, token)) WITHOUT ROWID""",
        """CREATE TABLE outbox (id INTEGER PRIMARY KEY, at INTEGER NOT NULL, topic TEXT NOT NULL,
            body BLOB NOT NULL)""",
        # Entries of changes and refusals as they are committed: one page a commit. They are moved below in batches.
        """CREATE TABLE event_new (
            seq INTEGER PRIMARY KEY, account TEXT NOT NULL, at INTEGER NOT NULL, id TEXT NOT NULL,
            name TEXT NOT NULL, source TEXT NOT NULL, user TEXT NOT NULL, access_key TEXT NOT NULL,
            read_only TEXT NOT NULL, category TEXT NOT NULL, error TEXT NOT NULL, request_id TEXT NOT NULL,
            resources TEXT NOT NULL, body BLOB NOT NULL)""",
        """CREATE TABLE event (
            seq INTEGER PRIMARY KEY AUTOINCREMENT, account TEXT NOT NULL, at INTEGER NOT NULL, id TEXT NOT NULL,
            name TEXT NOT NULL, source TEXT NOT NULL, user TEXT NOT NULL, access_key TEXT NOT NULL,
            read_only TEXT NOT NULL, category TEXT NOT NULL, error TEXT NOT NULL, request_id TEXT NOT NULL,
            resources TEXT NOT NULL, body BLOB NOT NULL)""",
        """CREATE UNIQUE INDEX event_id ON event (id, account)""",
        """CREATE INDEX event_at ON event (account, category, at, seq)""",
        """CREATE INDEX event_name ON event (account, name, at, seq)""",
        """CREATE INDEX event_user ON event (account, user, at, seq)""",
        """CREATE INDEX event_refused ON event (account, at, seq) WHERE error <> ''""",
        """CREATE TABLE log_line (
            seq INTEGER PRIMARY KEY, stream TEXT NOT NULL, at INTEGER NOT NULL, ingested INTEGER NOT NULL,
            message TEXT NOT NULL)""",
        """CREATE INDEX log_line_stream ON log_line (stream, at, seq)""",
        """CREATE TABLE execution (
            id TEXT PRIMARY KEY, flow TEXT NOT NULL, status TEXT NOT NULL, step TEXT NOT NULL, due INTEGER NOT NULL,
            owner TEXT NOT NULL, lease INTEGER NOT NULL, doc BLOB NOT NULL) WITHOUT ROWID""",
        """CREATE INDEX execution_due ON execution (due, id) WHERE status = 'Running'""",
        """CREATE TABLE step (
            seq INTEGER PRIMARY KEY, execution TEXT NOT NULL, step TEXT NOT NULL, event TEXT NOT NULL,
            at INTEGER NOT NULL, detail BLOB NOT NULL)""",
        """CREATE INDEX step_execution ON step (execution, seq)""",
    ),
    (
        # The tags of resources (of what keeps history), to be found by key and value; the parts of the name are the row's.
        """CREATE TABLE tag (
            account TEXT NOT NULL, region TEXT NOT NULL, key TEXT NOT NULL, value TEXT NOT NULL,
            kind TEXT NOT NULL, name TEXT NOT NULL,
            PRIMARY KEY (account, region, key, value, kind, name)) WITHOUT ROWID""",
        """CREATE INDEX tag_key ON tag (account, region, kind, key, name)""",
        """CREATE INDEX resource_tagged ON resource (kind, account, region, name) WHERE tags <> x'7b7d'""",
        """INSERT INTO tag SELECT r.account, r.region, t.key, t.value, r.kind, r.name
            FROM resource AS r, json_each(CAST(r.tags AS TEXT)) AS t
            WHERE r.tags <> x'7b7d' AND r.kind NOT IN ('s3:Object', 's3:ObjectVersion')""",
    ),
    (),  # From here on no older program opens the file: it would write pages without their checksums.
    (),  # Every page has its checksum (`bastide.store.database`).
)
CHECKED = 4
"""The schema whose pages have checksums."""
