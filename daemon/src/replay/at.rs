//! Whom a change of a replay is about and from which row on, as the command line says it.

use std::str::FromStr;

/// `MODEL@ROW`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct At {
    /// The model.
    pub model: String,
    /// The routed row.
    pub row: usize,
}

/// `MODEL@ROW=VALUE`.
#[derive(Debug, Clone, PartialEq)]
pub struct AtValue {
    /// Whom and when.
    pub at: At,
    /// By how much.
    pub value: f64,
}

/// Why a text is no change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChangeFault {
    /// No model and row.
    #[error("write MODEL@ROW with a row from 0, such as some-model@500")]
    NoRow,
    /// No value.
    #[error("write MODEL@ROW=NUMBER, such as some-model@500=0.2")]
    NoValue,
}

impl FromStr for At {
    type Err = ChangeFault;

    /// The last `@` counts: names of models may have one.
    fn from_str(text: &str) -> Result<Self, ChangeFault> {
        let (model, row) = text.rsplit_once('@').ok_or(ChangeFault::NoRow)?;
        let row = row.parse().map_err(|_| ChangeFault::NoRow)?;
        if model.is_empty() { Err(ChangeFault::NoRow) } else { Ok(Self { model: model.to_owned(), row }) }
    }
}

impl FromStr for AtValue {
    type Err = ChangeFault;

    fn from_str(text: &str) -> Result<Self, ChangeFault> {
        let (at, value) = text.rsplit_once('=').ok_or(ChangeFault::NoValue)?;
        Ok(Self { at: at.parse()?, value: value.parse().map_err(|_| ChangeFault::NoValue)? })
    }
}
