//! The part of AdminService that shows the audit chain and proves it. It changes nothing.

use pointsman_proto::v1;
use pointsman_router::check::{BadRequest, Problem};

use super::admin::Administration;
use super::status::Refusal;
use crate::audit::{Breach, Hash, Head, Link};
use crate::wire::timestamp;

/// Entries in a page where the caller does not say.
const PAGE_SIZE: usize = 50;
/// Most entries in a page.
const PAGE_SIZE_MAX: usize = 500;

impl Administration {
    pub(super) async fn do_list_audit(
        &self,
        asked: v1::ListAuditRequest,
    ) -> Result<v1::ListAuditResponse, Refusal> {
        let below = match asked.page_token.as_str() {
            "" => None,
            token => Some(token.parse().map_err(|_| {
                BadRequest::of("page_token", Problem::malformed("is no token of a page, give next_page_token"))
            })?),
        };
        let size = match usize::try_from(asked.page_size) {
            Ok(0) => PAGE_SIZE,
            Ok(size) => size.min(PAGE_SIZE_MAX),
            Err(_) => PAGE_SIZE_MAX,
        };
        let entries = self.ledger.audit_chain(below, size).await?;
        // Places have no gaps, so the first entry ends the last page.
        let next = entries.last().filter(|last| last.seq > 1).map(|last| last.seq.to_string());
        Ok(v1::ListAuditResponse {
            entries: entries.into_iter().map(to_wire).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    pub(super) async fn do_verify_audit(
        &self,
        asked: v1::VerifyAuditRequest,
    ) -> Result<v1::VerifyAuditResponse, Refusal> {
        let known = asked.known.map(known).transpose()?;
        let proved = self.ledger.prove_audit(known).await?;
        Ok(match proved {
            Ok(Head { seq, hash }) => v1::VerifyAuditResponse {
                sound: true,
                head: Some(v1::AuditHead { sequence: seq, hash: hash.into() }),
                ..v1::VerifyAuditResponse::default()
            },
            Err(breach) => {
                tracing::error!(%breach, "the audit log is not what was written");
                v1::VerifyAuditResponse {
                    breach: breach.to_string(),
                    breach_sequence: place(&breach),
                    ..v1::VerifyAuditResponse::default()
                }
            }
        })
    }
}

/// The first entry that is not as it was.
fn place(breach: &Breach) -> u64 {
    match breach {
        Breach::Missing { seq } | Breach::Altered { seq } | Breach::Added { seq } => *seq,
        Breach::Cut { last, .. } => last + 1,
    }
}

fn known(head: v1::AuditHead) -> Result<Head, BadRequest> {
    let hash = Hash::try_from(head.hash).map_err(|_| {
        BadRequest::of("known.hash", Problem::out_of_range("the 32 bytes that VerifyAudit replied"))
    })?;
    Ok(Head { seq: head.sequence, hash })
}

fn to_wire(link: Link) -> v1::AuditEntry {
    let Link { seq, at, actor, action, subject, details, hash } = link;
    v1::AuditEntry { sequence: seq, at: Some(timestamp(at)), actor, action, subject, details, hash: hash.into() }
}
