//! What a command reads besides its flags: `@FILE`, `-` for stdin, JSON Lines, gzipped or not.
//!
//! Every failure here is the caller's to mend, so each ends the process with the code of a usage error.

use std::fs::File;
use std::io::{self, BufRead, BufReader, IsTerminal as _, Read as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use flate2::read::MultiGzDecoder;
use thiserror::Error;

/// Longest text that is read from a file or stdin, in bytes.
const TEXT_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Longest file that is read as a whole, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// What is wrong with the command line or with a file that it names.
#[derive(Debug, Error)]
pub(crate) enum InputFault {
    /// A flag, or the lack of one.
    #[error("{flag}: {why}")]
    Flag {
        /// The flag or argument.
        flag: &'static str,
        /// What is wrong and what to write.
        why: String,
    },
    /// A file that cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// Its path, or `stdin`.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A line of a file.
    #[error("{path}, line {line}: {why}")]
    Line {
        /// Path of the file.
        path: String,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong.
        why: String,
    },
}

/// A fault of a flag.
pub(crate) fn flag(flag: &'static str, why: impl Into<String>) -> InputFault {
    InputFault::Flag { flag, why: why.into() }
}

/// The text of an argument: `@FILE` is read from the file, `-` from stdin, `@@…` is text that begins with `@`.
pub(crate) fn text(argument: &str) -> Result<String, InputFault> {
    if argument == "-" {
        return read_all(io::stdin().lock(), "stdin");
    }
    match argument.strip_prefix('@') {
        None => Ok(argument.to_owned()),
        Some(rest) if rest.starts_with('@') => Ok(rest.to_owned()),
        Some(path) => read_all(open(path)?, path),
    }
}

/// Like [`text`]; without an argument, stdin if it is not a terminal.
pub(crate) fn text_or_stdin(argument: Option<&str>, name: &'static str) -> Result<String, InputFault> {
    match argument {
        Some(argument) => text(argument),
        None if io::stdin().is_terminal() => {
            Err(flag(name, "is missing; give it as text, as @FILE, or through stdin"))
        }
        None => text("-"),
    }
}

/// The bytes of a file, or of stdin.
pub(crate) fn bytes(path: &str) -> Result<Vec<u8>, InputFault> {
    let mut bytes = Vec::new();
    let read = if path == "-" {
        io::stdin().lock().take(FILE_BYTES_MAX).read_to_end(&mut bytes)
    } else {
        open(path)?.take(FILE_BYTES_MAX).read_to_end(&mut bytes)
    };
    read.map_err(|source| file_fault(path, source))?;
    Ok(bytes)
}

/// The lines of a file, unpacked when its name ends in `.gz`; `-` is stdin.
pub(crate) fn lines(path: &str) -> Result<Box<dyn BufRead>, InputFault> {
    Ok(watched_lines(path)?.0)
}

/// Like [`lines`], and how far the file has been read.
pub(crate) fn watched_lines(path: &str) -> Result<(Box<dyn BufRead + Send>, Reading), InputFault> {
    if path == "-" {
        return Ok((Box::new(BufReader::new(io::stdin())), Reading::default()));
    }
    let file = open(path)?;
    let reading = Reading { read: Arc::default(), size: file.metadata().ok().map(|known| known.len()) };
    let file = Watched { file, read: Arc::clone(&reading.read) };
    if path.ends_with(".gz") {
        Ok((Box::new(BufReader::new(MultiGzDecoder::new(BufReader::new(file)))), reading))
    } else {
        Ok((Box::new(BufReader::new(file)), reading))
    }
}

/// How far a file has been read.
#[derive(Debug, Clone, Default)]
pub(crate) struct Reading {
    read: Arc<AtomicU64>,
    size: Option<u64>,
}

impl Reading {
    /// The share of the file that has been read, 0 to 1. Absent: its size is not known.
    #[expect(clippy::cast_precision_loss, reason = "a share that a bar shows in percent")]
    pub(crate) fn share(&self) -> Option<f64> {
        let size = self.size.filter(|size| *size > 0)?;
        Some(self.read.load(Ordering::Relaxed) as f64 / size as f64)
    }
}

/// A file that counts what is read of it.
struct Watched {
    file: File,
    read: Arc<AtomicU64>,
}

impl io::Read for Watched {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(into)?;
        self.read.fetch_add(u64::try_from(read).unwrap_or(0), Ordering::Relaxed);
        Ok(read)
    }
}

/// Reads JSON Lines: calls `read` with each line that is not blank.
pub(crate) fn each_line<T>(
    path: &str,
    mut read: impl FnMut(&str) -> Result<T, String>,
) -> Result<Vec<T>, InputFault> {
    let mut items = Vec::new();
    for (index, line) in lines(path)?.lines().enumerate() {
        let line = line.map_err(|source| file_fault(path, source))?;
        if line.trim().is_empty() {
            continue;
        }
        items.push(read(&line).map_err(|why| InputFault::Line { path: path.to_owned(), line: index + 1, why })?);
    }
    Ok(items)
}

/// A fault of a file.
pub(crate) fn file_fault(path: &str, source: io::Error) -> InputFault {
    InputFault::File { path: path.to_owned(), source }
}

fn open(path: &str) -> Result<File, InputFault> {
    File::open(path).map_err(|source| file_fault(path, source))
}

fn read_all(reader: impl io::Read, path: &str) -> Result<String, InputFault> {
    let mut text = String::new();
    reader.take(TEXT_BYTES_MAX).read_to_string(&mut text).map_err(|source| file_fault(path, source))?;
    // A file or a pipe nearly always ends with a line feed that nobody meant to ask.
    if text.ends_with('\n') {
        text.pop();
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_signs() {
        let check = |argument: &str, expected: &str| {
            assert_eq!(text(argument).expect(argument), expected);
        };
        check("plain", "plain");
        check("@@handle", "@handle");
        assert!(matches!(text("@no/such/file"), Err(InputFault::File { .. })));
    }
}
