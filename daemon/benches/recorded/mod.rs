//! Recorded outcomes of real models as more than one bench reads them; no part of this project, so whoever asks skips
//! what is absent, loudly.
//!
//! They are looked for in `$POINTSMAN_SHARED/data` (`../shared/data`).

use std::path::PathBuf;

use pointsman_daemon::backends::recorded_rows::{Rows, Selection};

/// The twelve models of MMLU-Pro that are usually routed over, the two strongest first.
pub(crate) const POOL_12: [&str; 12] = [
    "gpt-4o-2024-05-13",
    "gemini-1.5-pro-002",
    "gemini-1.5-flash-002",
    "Meta-Llama-3_1-70B-Instruct",
    "deepseek-v2-chat",
    "jamba-1.5-large",
    "Qwen1.5-72B-Chat",
    "Meta-Llama-3_1-8B-Instruct",
    "mathstral-7B",
    "Mixtral-8x7B-Instruct-v0.1",
    "Phi-3-mini-4k-instruct",
    "c4ai-command-r-v01",
];

/// The rows of a file on which every model of the pool was recorded; an empty pool is all models of the file. `None`
/// where the file is absent.
pub(crate) fn read(file: &str, pool: &[&str]) -> anyhow::Result<Option<Rows>> {
    let shared = std::env::var_os("POINTSMAN_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared"), PathBuf::from);
    let path = shared.join("data").join(file);
    if !path.is_file() {
        return Ok(None);
    }
    let pool = (!pool.is_empty()).then(|| pool.iter().map(|&name| name.to_owned()).collect());
    let Rows { models, mut rows, .. } = Rows::read(&path, &Selection { pool, limit: None })?;
    rows.retain(|row| row.outcomes.iter().all(Option::is_some));
    Ok(Some(Rows::of(models, rows)))
}
