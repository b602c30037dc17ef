//! The tables of `ledger.db`, as numbered steps. A step that was released is never edited.
//!
//! Money is in nano-dollars, times are microseconds since 1970 in UTC, decision ids are their
//! sixteen bytes.

use crate::store::Migration;

/// The steps, oldest first.
pub(super) const STEPS: &[Migration] = &[
    Migration::new(FIRST),
    Migration::new(FITTED),
    Migration::new(IMPORTED),
    Migration::new(LIFECYCLE),
    Migration::new(WITNESSED),
    Migration::new(ACCOUNTS),
    Migration::new(KEYS),
];

const FIRST: &str = "
CREATE TABLE feedback (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    decision BLOB NOT NULL CHECK (length(decision) = 16),
    model TEXT,
    source TEXT NOT NULL,
    verdict_kind TEXT NOT NULL,
    verdict BLOB NOT NULL,
    score REAL NOT NULL CHECK (score BETWEEN 0 AND 1),
    comment TEXT NOT NULL,
    at_micros INTEGER NOT NULL,
    corrects_seq INTEGER,
    orphan INTEGER NOT NULL DEFAULT 0,
    task TEXT NOT NULL,
    policy TEXT NOT NULL,
    answer_model TEXT,
    chosen TEXT NOT NULL,
    labels TEXT NOT NULL
) STRICT;
CREATE INDEX feedback_of_decision ON feedback (decision, seq);

CREATE TABLE feedback_stats (
    model TEXT NOT NULL,
    task TEXT NOT NULL,
    judged INTEGER NOT NULL,
    score_sum REAL NOT NULL,
    PRIMARY KEY (model, task)
) STRICT, WITHOUT ROWID;

CREATE TABLE policies (
    version TEXT PRIMARY KEY,
    kind TEXT NOT NULL,
    state TEXT NOT NULL,
    created_at_micros INTEGER NOT NULL,
    settings TEXT NOT NULL
) STRICT;

CREATE TABLE policy_state (
    version TEXT NOT NULL,
    role TEXT NOT NULL,
    kind TEXT NOT NULL,
    created_at_micros INTEGER NOT NULL,
    feedback_mark INTEGER NOT NULL,
    trace_mark INTEGER NOT NULL,
    updates INTEGER NOT NULL,
    bytes BLOB NOT NULL,
    PRIMARY KEY (version, role)
) STRICT;

CREATE TABLE model_overrides (
    model TEXT PRIMARY KEY,
    body TEXT NOT NULL
) STRICT;

CREATE TABLE idempotency (
    key BLOB PRIMARY KEY,
    body BLOB NOT NULL,
    state TEXT NOT NULL,
    reply BLOB,
    decision BLOB,
    at_micros INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX idempotency_by_age ON idempotency (at_micros);
CREATE INDEX idempotency_of_decision ON idempotency (decision) WHERE decision IS NOT NULL;

CREATE TABLE budget_window (
    budget TEXT NOT NULL,
    start_micros INTEGER NOT NULL,
    resets_at_micros INTEGER,
    amount INTEGER,
    leased INTEGER NOT NULL DEFAULT 0,
    settled INTEGER NOT NULL DEFAULT 0,
    unknown INTEGER NOT NULL DEFAULT 0,
    overrun INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (budget, start_micros)
) STRICT, WITHOUT ROWID;

CREATE TABLE budget_mark (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    through INTEGER NOT NULL
) STRICT;
INSERT INTO budget_mark (one, through) VALUES (1, 0);

CREATE TABLE transfers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    budget TEXT NOT NULL,
    start_micros INTEGER NOT NULL,
    at_micros INTEGER NOT NULL,
    kind TEXT NOT NULL,
    amount INTEGER NOT NULL,
    leased INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    unknown INTEGER NOT NULL,
    overrun INTEGER NOT NULL
) STRICT;
CREATE INDEX transfers_of_window ON transfers (budget, start_micros, seq);
";

/// What is known of policies that were fitted.
const FITTED: &str = "
ALTER TABLE policies ADD COLUMN artifact_bytes INTEGER NOT NULL DEFAULT 0;
ALTER TABLE policies ADD COLUMN schema_hash INTEGER;
ALTER TABLE policies ADD COLUMN trained_rows INTEGER NOT NULL DEFAULT 0;
ALTER TABLE policies ADD COLUMN trained_through INTEGER NOT NULL DEFAULT 0;
ALTER TABLE policies ADD COLUMN report TEXT;
ALTER TABLE policies ADD COLUMN evaluation TEXT;
ALTER TABLE policies ADD COLUMN predecessor TEXT;
";

/// Feedback that came with traces from elsewhere: when.
const IMPORTED: &str = "
ALTER TABLE feedback ADD COLUMN imported_at_micros INTEGER;
";

/// How much of all information a source of feedback may be while it departs from the others, as it was set when
/// the row came: whatever is set later, the row teaches what it taught.
const WITNESSED: &str = "
ALTER TABLE feedback ADD COLUMN departing_share REAL;
";

/// Who decides, who decided before and who is on trial, in one row, so that it changes as one; what the
/// trials have counted; and what was done to policies, which is only ever added to.
const LIFECYCLE: &str = "
CREATE TABLE lifecycle (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    body TEXT NOT NULL
) STRICT;

CREATE TABLE trials (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    body TEXT NOT NULL
) STRICT;

CREATE TABLE audit (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    at_micros INTEGER NOT NULL,
    action TEXT NOT NULL,
    actor TEXT NOT NULL,
    from_version TEXT,
    to_version TEXT NOT NULL,
    share REAL,
    forced INTEGER NOT NULL,
    reason TEXT NOT NULL
) STRICT;
CREATE INDEX audit_of_version ON audit (to_version, action);
CREATE TRIGGER audit_is_not_changed BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
";

/// Movements of money of many accounts, each balanced in itself and only ever added to, in place of the earlier
/// audit of leases; and budgets that were set at run time.
const ACCOUNTS: &str = "
ALTER TABLE transfers RENAME TO transfers_before_accounts;
DROP INDEX transfers_of_window;

CREATE TABLE transfers (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    start_micros INTEGER NOT NULL,
    at_micros INTEGER NOT NULL,
    kind TEXT NOT NULL,
    key TEXT,
    leased INTEGER NOT NULL,
    held INTEGER NOT NULL,
    settled INTEGER NOT NULL,
    released INTEGER NOT NULL,
    unknown INTEGER NOT NULL,
    overrun INTEGER NOT NULL
) STRICT;
CREATE INDEX transfers_of_window ON transfers (account, start_micros, seq);
CREATE UNIQUE INDEX transfers_by_key ON transfers (key, account, start_micros) WHERE key IS NOT NULL;
CREATE TRIGGER transfers_are_not_changed BEFORE UPDATE ON transfers BEGIN SELECT RAISE(ABORT, 'transfers are only added to'); END;
CREATE TRIGGER transfers_are_not_cut BEFORE DELETE ON transfers BEGIN SELECT RAISE(ABORT, 'transfers are only added to'); END;

INSERT INTO transfers (account, start_micros, at_micros, kind, leased, held, settled, released, unknown, overrun)
    SELECT budget, start_micros, start_micros, 'opened', leased, settled + unknown - overrun, settled, 0, unknown, overrun
    FROM budget_window;

CREATE TABLE budgets (
    name TEXT PRIMARY KEY,
    body TEXT
) STRICT;
";

/// Keys of callers, of whose secrets only a keyed hash is here; and the audit chain with its head, which is only
/// ever added to.
const KEYS: &str = "
CREATE TABLE api_keys (
    id TEXT PRIMARY KEY,
    tenant TEXT NOT NULL,
    name TEXT NOT NULL,
    scopes TEXT NOT NULL,
    created_at_micros INTEGER NOT NULL,
    expires_at_micros INTEGER,
    revoked_at_micros INTEGER,
    rotated_from TEXT,
    limits TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;

CREATE TABLE audit_chain (
    seq INTEGER PRIMARY KEY,
    at_micros INTEGER NOT NULL,
    actor TEXT NOT NULL,
    action TEXT NOT NULL,
    subject TEXT NOT NULL,
    details TEXT NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
CREATE TABLE audit_head (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    seq INTEGER NOT NULL,
    hash BLOB NOT NULL CHECK (length(hash) = 32)
) STRICT;
INSERT INTO audit_head (one, seq, hash) VALUES (1, 0, zeroblob(32));
CREATE TRIGGER audit_chain_is_not_changed BEFORE UPDATE ON audit_chain BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
CREATE TRIGGER audit_chain_is_not_cut BEFORE DELETE ON audit_chain BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
CREATE TRIGGER audit_head_moves_on BEFORE UPDATE ON audit_head WHEN new.seq <> old.seq + 1 BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
CREATE TRIGGER audit_head_stays BEFORE DELETE ON audit_head BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
";
