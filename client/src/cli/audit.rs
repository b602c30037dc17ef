//! `audit`: what was done to the daemon, and whether the log of it is what was written.

use std::fmt::Write as _;

use pointsman_client::v1;

use super::args::AuditCommand;
use super::exit::Exit;
use super::input::{InputFault, flag};
use super::session::Session;
use super::tables::{Look, time};

/// Entries in one call, at most.
const PAGE_MAX: u32 = 500;
/// Bytes of a hash.
const HASH_BYTES: usize = 32;

/// The audit log: list, verify.
pub(crate) async fn audit(session: &Session, command: AuditCommand) -> anyhow::Result<Exit> {
    match command {
        AuditCommand::List { limit } => {
            let response = list(session, limit).await?;
            session.reply(&response, list_text)?;
            Ok(Exit::Ok)
        }
        AuditCommand::Verify { known } => {
            let known = known.as_deref().map(head).transpose()?;
            let call = session.client.verify_audit(v1::VerifyAuditRequest { known });
            let response = session.call("verifying", call).await?;
            session.reply(&response, verify_text)?;
            Ok(if response.sound { Exit::Ok } else { Exit::Internal })
        }
    }
}

/// The newest entries, page by page.
async fn list(session: &Session, limit: u32) -> anyhow::Result<v1::ListAuditResponse> {
    let mut all = v1::ListAuditResponse::default();
    loop {
        let left = limit.saturating_sub(u32::try_from(all.entries.len()).unwrap_or(u32::MAX));
        if left == 0 {
            return Ok(all);
        }
        let request = v1::ListAuditRequest { page_size: left.min(PAGE_MAX), page_token: all.next_page_token };
        let page = session.call("reading", session.client.list_audit(request)).await?;
        all.entries.extend(page.entries);
        all.next_page_token = page.next_page_token;
        if all.next_page_token.is_empty() {
            return Ok(all);
        }
    }
}

fn list_text(look: &Look, response: &v1::ListAuditResponse) -> String {
    let rows = response.entries.iter().map(|entry| {
        vec![
            entry.sequence.to_string(),
            time(entry.at.as_ref()),
            entry.actor.clone(),
            entry.action.clone(),
            entry.subject.clone(),
            entry.details.clone(),
        ]
    });
    look.table(&[">place", "when", "who", "what", "to what", "how"], rows.collect())
}

fn verify_text(_: &Look, response: &v1::VerifyAuditResponse) -> String {
    let head = response.head.clone().unwrap_or_default();
    if response.sound {
        format!("sound; its head is {}:{}\n", head.sequence, hex(&head.hash))
    } else {
        format!("BROKEN at entry {}: {}\n", response.breach_sequence, response.breach)
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a text cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A head as `audit verify` shows it.
fn head(text: &str) -> Result<v1::AuditHead, InputFault> {
    let wrong = || flag("--known", "write the head that `audit verify` showed, PLACE:HASH");
    let (place, digits) = text.split_once(':').ok_or_else(wrong)?;
    let sequence = place.parse().map_err(|_| wrong())?;
    if digits.len() != 2 * HASH_BYTES || !digits.is_ascii() {
        return Err(wrong());
    }
    let byte = |at: usize| digits.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let hash = (0..digits.len()).step_by(2).map(byte).collect::<Option<Vec<u8>>>().ok_or_else(wrong)?;
    Ok(v1::AuditHead { sequence, hash })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_as_it_is_shown() {
        let shown = v1::AuditHead { sequence: 7, hash: (0..32).collect() };
        assert_eq!(head(&format!("7:{}", hex(&shown.hash))).expect("reads"), shown);
        for bad in ["", "7", "7:", ":00", "x:00", "7:0g", &format!("7:{}", "é".repeat(32))] {
            assert!(head(bad).is_err(), "{bad}");
        }
    }
}
