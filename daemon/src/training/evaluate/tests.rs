//! Evaluations over real files.
