//! The accounts of sources as a part of the online state's bytes: little-endian, equal bits back.
//!
//! | part | bytes |
//! |---|---|
//! | labels there ever were, since the last halving, taught | 8, 8, 8 |
//! | the newcomers' account | see below |
//! | number of sources, for each its name as length and UTF-8, and its account | 4, 4 + text |
//! | an account: labels, taught, departs, tokens, counted at, number of cells, for each its place and three numbers | 8, 8, 1, 8, 8, 4, 28 |

use std::collections::BTreeMap;

use super::{Account, Cell, SOURCES_MAX, Sources};

impl Sources {
    /// Appends them.
    pub(crate) fn push(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.labels.to_le_bytes());
        push_numbers(out, [self.since_fade, self.taught]);
        push_account(out, &self.newcomers);
        push_length(out, self.accounts.len());
        for (source, account) in &self.accounts {
            push_length(out, source.len());
            out.extend_from_slice(source.as_bytes());
            push_account(out, account);
        }
    }

    /// Reads them from the front; `None` where these bytes are none.
    pub(crate) fn take(bytes: &mut &[u8]) -> Option<Self> {
        let labels = u64::from_le_bytes(array(bytes)?);
        let [since_fade, taught] = numbers(bytes)?;
        let newcomers = account(bytes)?;
        let count = length(bytes)?;
        if count > SOURCES_MAX {
            return None;
        }
        let mut accounts = BTreeMap::new();
        for _ in 0..count {
            let length = length(bytes)?;
            let (name, left) = bytes.split_at_checked(length)?;
            *bytes = left;
            accounts.insert(String::from_utf8(name.to_vec()).ok()?, account(bytes)?);
        }
        Some(Self { accounts, newcomers, labels, since_fade, taught })
    }
}

fn push_account(out: &mut Vec<u8>, account: &Account) {
    out.extend_from_slice(&account.labels.to_le_bytes());
    push_numbers(out, [account.taught]);
    out.push(u8::from(account.departs) + 2 * u8::from(account.departed));
    push_numbers(out, [account.tokens, account.counted_at]);
    push_length(out, account.cells.len());
    for (at, cell) in &account.cells {
        out.extend_from_slice(&at.to_le_bytes());
        push_numbers(out, [cell.labels, cell.sum, cell.squares]);
    }
}

fn account(bytes: &mut &[u8]) -> Option<Account> {
    let labels = u64::from_le_bytes(array(bytes)?);
    let [taught] = numbers(bytes)?;
    let [flags] = array(bytes)?;
    if flags > 3 {
        return None;
    }
    let (departs, departed) = (flags % 2 == 1, flags >= 2);
    let [tokens, counted_at] = numbers(bytes)?;
    let mut cells = BTreeMap::new();
    for _ in 0..length(bytes)? {
        let at = u32::from_le_bytes(array(bytes)?);
        let [labels, sum, squares] = numbers(bytes)?;
        cells.insert(at, Cell { labels, sum, squares });
    }
    Some(Account { labels, taught, departs, departed, tokens, counted_at, cells })
}

fn push_length(out: &mut Vec<u8>, length: usize) {
    out.extend_from_slice(&u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes());
}

fn push_numbers(out: &mut Vec<u8>, numbers: impl IntoIterator<Item = f64>) {
    for number in numbers {
        out.extend_from_slice(&number.to_le_bytes());
    }
}

fn array<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, left) = bytes.split_first_chunk::<N>()?;
    *bytes = left;
    Some(*taken)
}

fn length(bytes: &mut &[u8]) -> Option<usize> {
    usize::try_from(u32::from_le_bytes(array(bytes)?)).ok()
}

fn numbers<const N: usize>(bytes: &mut &[u8]) -> Option<[f64; N]> {
    let mut numbers = [0.0; N];
    for number in &mut numbers {
        *number = f64::from_le_bytes(array(bytes)?);
    }
    Some(numbers)
}
